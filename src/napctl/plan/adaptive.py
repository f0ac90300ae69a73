"""Adaptive RX coalescing inside a range and a latency budget: the five levels that the driver's DIM walks.

DIM (lib/dim/net_dim.c) compares bytes, then packets, then interrupts of 64 events with those before, and moves on by
one level while that is better by 10 %; it knows neither latency nor a budget. So the levels have to keep to it.
Where the driver takes them from user space (Linux 6.11, commit f750dfe825b9; Documentation/networking/net_dim.rst), its
adaptation obeys by itself, and nothing needs to run.
"""

from math import ceil

from napctl.model.errors import BadInput
from napctl.model.limits import Bound, frames_bound, ring_fill_us
from napctl.model.machine import DIM_LEVELS, Device, DimProfile
from napctl.plan.proposal import Draft, Known

__all__ = ["adapt", "frames_of", "shortest_useful_us", "steps_us", "takes_profile"]


SMALLEST_FRAME_BITS = 84 * 8
"""On the wire: 64 bytes, preamble and gap (IEEE 802.3)."""


def takes_profile(device: Device) -> bool:
    """Whether its driver adapts, and takes the levels of that from user space."""
    coalescing = device.coalescing
    if coalescing is None or coalescing.use_adaptive_rx is None:
        return False
    return coalescing.rx_profile is not None and len(coalescing.rx_profile) == DIM_LEVELS


def steps_us(shortest_us: int, longest_us: int) -> tuple[int, ...]:
    """Five delays from the shortest to the longest, each longer than the one before by the same factor.

    The same factor, because DIM judges a step by the ratio of what it sees before and after it: then no step is too
    small to be seen while another leaps over what would have been best. The kernel's own are 1, 8, 64, 128, 256 µs.
    Whole µs; where there are fewer of those than levels, the shortest are repeated.
    """
    last = DIM_LEVELS - 1
    factor = (longest_us / max(1, shortest_us)) ** (1 / last)
    steps = [shortest_us]
    for level in range(1, DIM_LEVELS):
        step = max(steps[-1] + 1, round(max(1, shortest_us) * factor**level))
        steps.append(min(step, longest_us - (last - level)))  # leaves a µs to each that follows
    return tuple(max(shortest_us, step) for step in steps)


def shortest_useful_us(speed_mbps: int | None) -> int:
    """The time in which two of the smallest frames pass at link rate, at least 1 µs: no load whatever gathers a second
    packet in less, so that a shorter delay saves nothing."""
    return max(1, ceil(2 * SMALLEST_FRAME_BITS / speed_mbps)) if speed_mbps else 1


def frames_of(step_us: int, speed_mbps: int | None, fewest: int, most: int) -> int:
    """The number of packets that ends a level's wait early: `fewest`, the goal's, as a burst of those need not wait.

    More where full frames at link rate bring more in that time: a number that ended the wait first would make a longer
    level no longer, and DIM, which would see no gain, would never take it. `most`: what the ring has room for.
    """
    at_link_rate = ceil(step_us / ring_fill_us(1, speed_mbps)) if speed_mbps else 0
    return min(most, max(fewest, at_link_rate))


def adapt(known: Known, draft: Draft, bound: Bound) -> None:
    """Propose the levels, and adaptive RX. `bound`: the longest RX delay that is safe.

    TX completions keep a fixed delay (plan/tx.py): it costs no latency that adapting could spare.
    """
    coalescing = known.device.coalescing
    assert coalescing is not None
    assert coalescing.rx_profile is not None
    others = () if coalescing.use_adaptive_rx else ("rx_usecs", "rx_max_frames")
    if draft.differing(("use_adaptive_rx", *others)):
        return
    steps, by = _steps(known, bound)
    levels = tuple(_level(known, step, now) for step, now in zip(steps, coalescing.rx_profile, strict=True))
    sources = [known.budget_source]
    if known.speed_mbps is not None:
        sources.append(known.speed_source)
    if known.ring("rx") is not None:
        sources.append(known.ring_source("rx"))
    why = (
        f"each level (µs/packets) lasts about {(steps[-1] / steps[0]) ** (1 / (DIM_LEVELS - 1)):.1f} times the one "
        "before, as adaptation goes by ratios (lib/dim/net_dim.c); its packets end the wait early, but not before full "
        "frames at link rate have had the time"
    )
    draft.coalesce("rx_profile", levels, why, by, sources)
    why = "the driver moves between the levels as the load does, and needs nobody for it"
    draft.coalesce("use_adaptive_rx", True, why, f"the longest level, {steps[-1]} µs", [known.budget_source])


def _steps(known: Known, bound: Bound) -> tuple[tuple[int, ...], str]:
    """The delays, and what keeps the longest from being longer. Raises BadInput if there is no room for any."""
    assert known.adaptive is not None
    asked = known.adaptive
    longest, by = bound.value, bound.by
    if asked.longest_us is not None and asked.longest_us < longest:
        longest, by = asked.longest_us, f"--range ends at {asked.longest_us} µs"
    shortest = min(longest, shortest_useful_us(known.speed_mbps)) if asked.shortest_us is None else asked.shortest_us
    if not 0 < shortest <= longest:
        raise BadInput(
            f"{known.device.name}: no room for adaptive RX between {max(1, shortest)} µs and {longest} µs ({by}): give "
            "more with --max-added-latency, or a range that begins earlier"
        )
    return steps_us(shortest, longest), by


def _level(known: Known, step_us: int, now: DimProfile) -> DimProfile:
    """What the driver has beside the delay stays where it cannot be computed; what it lacks, it is not given."""
    ring = known.ring("rx")
    if now.pkts is None or ring is None:
        pkts = now.pkts
    else:
        pkts = frames_of(step_us, known.speed_mbps, known.goal.rx_frames, frames_bound(ring, "RX").value)
    return DimProfile(usecs=step_us if now.usecs is not None else None, pkts=pkts, comps=now.comps)
