"""What of a poller's 100 % is work, estimated from its instructions and branches. Pure.

A thread that polls an empty ring runs one short loop: a constant mix of instructions, and branches that are always
predicted. So a window is a mix of two: of that loop, known from windows at rest, and of work, known from the window
that was busiest. Two ratios tell how much of its instructions is of which, and no other thread on the same core
changes them: branches, and mispredicted branches, for each instruction. Of cycles the loop then had at least what its
instructions take at rest where they are quickest; all others can have been work.

It is told as what was work at most, as the busiest window has some of the loop in it as well. It is an estimate and no
bound, and told too low, where

- what it does with a packet is another mix of instructions than in its busiest window;
- the loop was never seen at rest without another thread on the same core, and then is quicker than ever seen.

Sources. DPDK's examples/vm_power_manager/oob_monitor_x86.c takes a core for busy where more than 0.1 % of its branches
are mispredicted (BRANCH_RATIO_THRESHOLD). Gupta and others, A Black-Box Approach for Estimating Utilization of Polled
IO Network Functions, HotCloud 2019, estimate utilisation from such counters, linearly, with errors below 6 points
where they were calibrated with the program itself, and below 10 otherwise.
"""

from collections.abc import Callable

from msgspec.structs import replace

from napctl.census.pollers.work_share import BETTER, LEAST_PACKETS
from napctl.model.value import Value

__all__ = ["AT_REST", "MARGIN", "Counts", "RestAndWork", "Resting", "Signature", "estimate", "learn", "signature"]


MARGIN = 0.06
"""Of its time, that is added: the error that was published of such estimates."""
AT_REST = 0.01
"""Of a CPU: where no more than that can be work, a window shows the loop at rest."""
UNLIKE = 0.05
"""By so much, at least, branches for each instruction differ between rest and work, or they tell nothing."""
MORE_MISSES = 1.0
"""The same of mispredicted ones, which vary more: twice as many."""
LEAST_MISSES = 0.001
"""Of branches, in the busiest window: with fewer they are chance, or an interrupt's."""
LEAST_CYCLES = 50e6
"""In a window with fewer no ratio means anything."""


class Counts(Value, frozen=True, kw_only=True):
    """Of a thread within a window."""

    cycles: float
    instructions: float
    branches: float
    branch_misses: float


class Signature(Value, frozen=True, kw_only=True):
    """What a thread executes."""

    instructions_per_cycle: float
    branches_per_instruction: float
    misses_per_instruction: float


class Resting(Value, frozen=True, kw_only=True):
    """Each ratio in the windows at rest: its least and its most."""

    least: Signature
    most: Signature


class RestAndWork(Value, frozen=True, kw_only=True):
    """What is known of a thread from former windows."""

    resting: Resting | None = None
    busiest: Signature | None = None
    """Where it had the fewest cycles for each packet, and kept up."""
    cycles_per_packet: float | None = None
    """There."""


def signature(counts: Counts) -> Signature | None:
    """None: it ran for too short a time."""
    if counts.cycles < LEAST_CYCLES or counts.instructions <= 0:
        return None
    return Signature(
        instructions_per_cycle=counts.instructions / counts.cycles,
        branches_per_instruction=counts.branches / counts.instructions,
        misses_per_instruction=counts.branch_misses / counts.instructions,
    )


def learn(known: RestAndWork, counts: Counts, packets: int, *, resting: bool) -> RestAndWork:
    """With one more window, in which it kept up."""
    now = signature(counts)
    if now is None:
        return known
    if resting:
        return replace(known, resting=_wider(known.resting, now))
    cost = counts.cycles / packets if packets >= LEAST_PACKETS else None
    if cost is None or (known.cycles_per_packet is not None and cost >= BETTER * known.cycles_per_packet):
        return known
    return replace(known, busiest=now, cycles_per_packet=cost)


def estimate(now: Signature, resting: Resting, busiest: Signature) -> float | None:
    """What of its time was work at most, with the margin, 0 … 1; None: all of it may have been, or its loop at rest
    looks like its work."""
    parts = [
        part for part in (_by_branches(now, resting, busiest), _by_misses(now, resting, busiest)) if part is not None
    ]
    if not parts or resting.most.instructions_per_cycle <= 0:
        return None
    loops = (1 - max(parts)) * now.instructions_per_cycle / resting.most.instructions_per_cycle
    share = max(0.0, 1 - loops) + MARGIN
    return share if share < 1 else None


def _by_branches(now: Signature, resting: Resting, busiest: Signature) -> float | None:
    """Which part of its instructions was as in the busiest window."""
    least, most = resting.least.branches_per_instruction, resting.most.branches_per_instruction
    work = busiest.branches_per_instruction
    if abs(work - most) < UNLIKE * most or abs(work - least) < UNLIKE * least or least <= work <= most:
        return None
    return _part(now.branches_per_instruction, least if work > most else most, work)


def _by_misses(now: Signature, resting: Resting, busiest: Signature) -> float | None:
    """The same, by mispredicted branches: work has more of them."""
    least, most = resting.least.misses_per_instruction, resting.most.misses_per_instruction
    work = busiest.misses_per_instruction
    if work < (1 + MORE_MISSES) * most or work < LEAST_MISSES * busiest.branches_per_instruction or work <= 0:
        return None
    return _part(now.misses_per_instruction, least, work)


def _part(now: float, rest: float, work: float) -> float:
    """How far it is from `rest` to `work`. `rest` is the end that is further from work: it tells more, not less."""
    return min(1.0, max(0.0, (now - rest) / (work - rest)))


def _wider(known: Resting | None, now: Signature) -> Resting:
    if known is None:
        return Resting(least=now, most=now)
    return Resting(least=_each(min, known.least, now), most=_each(max, known.most, now))


def _each(choose: Callable[[float, float], float], one: Signature, other: Signature) -> Signature:
    return Signature(
        instructions_per_cycle=choose(one.instructions_per_cycle, other.instructions_per_cycle),
        branches_per_instruction=choose(one.branches_per_instruction, other.branches_per_instruction),
        misses_per_instruction=choose(one.misses_per_instruction, other.misses_per_instruction),
    )
