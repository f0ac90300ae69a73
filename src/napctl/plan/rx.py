"""Proposals for the receiving side: RX coalescing where the hardware has it, deferral where only the software can."""

from napctl.model.driver_quirks import is_a_mode, takes_usecs, without_coalescing
from napctl.model.limits import Bound, frames_bound, rx_usecs_bound
from napctl.model.machine import Coalescing
from napctl.plan.adaptive import adapt, takes_profile
from napctl.plan.applied import software_delay_ns
from napctl.plan.proposal import Draft, Known, has_deferral
from napctl.plan.rates import gathering

__all__ = ["receive"]


NEVER_RAISED = "this goal raises no delay"


def receive(known: Known, draft: Draft) -> None:
    """Spend the latency budget once: hardware delay and software delay add up."""
    device = known.device
    coalescing = device.coalescing or Coalescing()
    if known.held:
        ids = ", ".join(map(str, known.held))
        draft.leave(f"the receiving side: NAPI {ids} belongs to an application that polls it (detach it first)")
    elif known.adaptive is not None and takes_profile(device):
        adapt(known, draft, _rx_bound(known, draft))
    elif known.adaptive is not None:
        draft.leave("the receiving side: its driver takes no profile for adaptive RX")
    elif without_coalescing(device) or coalescing.rx_usecs is None:
        _without_hardware(known, draft)
    elif coalescing.use_adaptive_rx and known.goal.keeps_adaptive_rx and not known.budget_given:
        draft.leave(
            "adaptive RX stays on: it goes by bytes, packets and interrupts (lib/dim/net_dim.c), as this goal does, "
            "but keeps to no latency budget; with --max-added-latency fixed values are proposed"
            + (", with --adaptive steps that keep to it" if takes_profile(device) else "")
        )
    elif not draft.differing(("rx_usecs", "rx_max_frames", "use_adaptive_rx")):
        _with_hardware(known, draft)


# The hardware gathers.


def _with_hardware(known: Known, draft: Draft) -> None:
    coalescing = known.device.coalescing
    assert coalescing is not None
    bound = _rx_bound(known, draft)
    usecs = takes_usecs(known.device, bound.value)
    if usecs < bound.value:
        bound = Bound(value=0, by=f"{bound.by}, and {known.device.driver} takes no delay that short")
    now = coalescing.rx_usecs
    fixed = not coalescing.use_adaptive_rx and not is_a_mode(known.device, now)
    if known.goal.lowers_only and fixed and now is not None and now <= usecs:
        usecs = now
    sources = _rx_sources(known)
    if coalescing.use_adaptive_rx:
        draft.coalesce(
            "use_adaptive_rx",
            False,
            "adaptive RX would overwrite the fixed delay, and keeps to no latency budget",
            "its longest delay is the driver's choice, 256 µs with lib/dim",
            [known.budget_source],
        )
    draft.coalesce("rx_usecs", usecs, _why(known, usecs), bound.by, sources)
    changed = not fixed or usecs != now
    _rx_frames(known, draft, usecs, coalescing.rx_max_frames, changed=changed)


def _rx_bound(known: Known, draft: Draft) -> Bound:
    """What is left of the budget for the hardware. Deferral is turned off where that can be done per NAPI instance."""
    device = known.device
    if has_deferral(device):
        for setting in ("defer_hard_irqs", "gro_flush_timeout_ns"):
            why = "the hardware gathers packets already, and the two delays would add up"
            draft.defer(setting, 0, why, "one latency budget for both", [known.budget_source])
        return _bound(known, known.budget_ns)
    software_ns = software_delay_ns(device)
    if software_ns:
        draft.leave(
            f"gro_flush_timeout of the device, {software_ns / 1000:g} µs, which counts towards the latency budget: "
            "this kernel or driver has it device-wide only"
        )
    return _bound(known, max(0, known.budget_ns - software_ns))


def _bound(known: Known, budget_ns: int) -> Bound:
    return rx_usecs_bound(budget_ns, known.speed_mbps, known.ring("rx"))


def _rx_frames(known: Known, draft: Draft, usecs: int, now: int | None, *, changed: bool) -> None:
    """The number that ends the wait early; 0 stands for no such number.

    Without a delay nothing but the number ends the wait, so it has to be 1 (struct ethtool_coalesce in
    include/uapi/linux/ethtool.h); both at 0 is how some drivers say "at once", and is left alone.
    """
    ring = known.ring("rx")
    if usecs == 0:
        if now is not None and (now != 0 or changed):
            why = "without a delay nothing else would end the wait for further frames"
            draft.coalesce("rx_max_frames", 1, why, "1 is the only number that keeps no frame waiting", [])
        return
    if ring is None:
        if now is not None:
            _ring_missing(known, draft, "RX", "rx-max-frames")
        return
    bound = frames_bound(ring, "RX")
    frames = min(known.goal.rx_frames, bound.value)
    if known.goal.lowers_only and now is not None and 0 < now <= frames:
        return
    why = f"a burst of {frames} does not wait for the time to pass"
    by = bound.by if frames == bound.value else f"{bound.by}; goal {known.goal.name} wants no more"
    draft.coalesce("rx_max_frames", frames, why, by, [known.ring_source("rx")])


# Only the software can.


def _without_hardware(known: Known, draft: Draft) -> None:
    device, goal = known.device, known.goal
    bound = _bound(known, known.budget_ns)
    reason = without_coalescing(device)
    if reason:
        draft.leave(f"coalescing: {reason}")
    elif not goal.lowers_only:
        draft.coalesce("rx_usecs", bound.value, goal.rx_why, bound.by, _rx_sources(known))
    frames = device.coalescing.rx_max_frames if device.coalescing and not reason else None
    if goal.lowers_only and frames is not None and frames > 1 and not draft.differing(("rx_max_frames",)):
        why = "the driver has no delay after which frames stop waiting for each other"
        draft.coalesce("rx_max_frames", 1, why, "1 is the only number that keeps no frame waiting", [])
    if goal.lowers_only:
        _lower_deferral(known, draft)
    else:
        _defer(known, draft, bound)


def _lower_deferral(known: Known, draft: Draft) -> None:
    """Deferral beyond the budget is turned off; a shorter one stays: instances may differ in it."""
    if software_delay_ns(known.device) <= known.budget_ns:
        return
    if not has_deferral(known.device):
        draft.leave("deferral is above the latency budget, but this kernel has none per NAPI instance (Linux 6.13 has)")
        return
    why = "its timer delays packets by more than the latency budget"
    for setting in ("defer_hard_irqs", "gro_flush_timeout_ns"):
        draft.defer(setting, 0, why, NEVER_RAISED, [known.budget_source])


def _defer(known: Known, draft: Draft, bound: Bound) -> None:
    """The timer gathers packets in the place of the hardware."""
    timer_ns = bound.value * 1000
    looks = known.goal.defer_hard_irqs if timer_ns else 0
    rate = gathering(known.window, known.device, timer_ns // 1000)
    why = f"the driver has no RX delay, so a timer gathers packets{rate}"
    if not known.device.napis:
        why = f"{why}, if the device had NAPI instances"
    draft.defer("gro_flush_timeout_ns", timer_ns, why, bound.by, _rx_sources(known))
    plural = "" if looks == 1 else "s"
    why = f"the interrupt comes back after {looks} look{plural} by timer that found{'' if plural else 's'} nothing"
    draft.defer("defer_hard_irqs", looks, why, f"goal {known.goal.name} wants no more", [])


def _why(known: Known, usecs: int) -> str:
    """With what the present value means, where it is no delay."""
    now = known.device.coalescing.rx_usecs if known.device.coalescing else None
    mode = f" ({now} stands for a moderation of {known.device.driver}'s own, not for {now} µs)"
    why = f"{known.goal.rx_why}{gathering(known.window, known.device, usecs)}" if usecs else "no packet waits"
    return f"{why}{mode if is_a_mode(known.device, now) else ''}"


def _rx_sources(known: Known) -> list[str]:
    sources = [known.budget_source]
    if known.speed_mbps is not None and known.ring("rx") is not None:
        sources += [known.speed_source, known.ring_source("rx")]
    return sources


def _ring_missing(known: Known, draft: Draft, kind: str, setting: str) -> None:
    name, driver = known.device.name, known.device.driver or "its driver"
    draft.missing.append(
        f"{name}: the size of its {kind} ring is not known ({driver} does not report it): no {setting}"
    )
