"""Proposals for the sending side: how long TX completions may wait."""

from napctl.model.driver_quirks import no_tx_delay, takes_usecs, without_coalescing
from napctl.model.limits import Bound, frames_bound, tx_usecs_bound
from napctl.model.machine import Coalescing
from napctl.plan.proposal import Draft, Known
from napctl.plan.rates import tx_only, udp_stream

__all__ = ["send"]


def send(known: Known, draft: Draft) -> None:
    """TX delay and frames. Nothing is computed from what is not known: that is asked for."""
    device = known.device
    coalescing = device.coalescing or Coalescing()
    if without_coalescing(device):
        return
    reason = no_tx_delay(device)
    if reason:
        draft.leave(f"TX coalescing: {reason}")
        return
    if coalescing.tx_usecs is not None and _asks(known, draft):
        return
    bound = _tx_bound(known)
    if bound is None:  # no such setting, and not enough known to say what it would be
        return
    if not draft.differing(("tx_usecs", "tx_max_frames", "use_adaptive_tx")):
        _propose(known, draft, coalescing, bound)


def _asks(known: Known, draft: Draft) -> bool:
    """Say which inputs are not known."""
    name, driver = known.device.name, known.device.driver or "its driver"
    if known.speed_mbps is None:
        draft.missing.append(
            f"{name}: link speed is not known ({driver} does not report it): give --speed {name}=10000"
        )
    if known.tcp_limit_bytes is None:
        draft.missing.append(f"{name}: net.ipv4.tcp_limit_output_bytes could not be read: no tx-usecs")
    if known.ring("tx") is None:
        draft.missing.append(f"{name}: size of its TX ring is not known ({driver} does not report it): no tx-usecs")
    return None in (known.speed_mbps, known.tcp_limit_bytes, known.ring("tx"))


def _tx_bound(known: Known) -> Bound | None:
    """None: not enough is known."""
    if known.speed_mbps is None or known.tcp_limit_bytes is None:
        return None
    return tx_usecs_bound(known.tcp_limit_bytes, known.speed_mbps, known.ring("tx"))


def _propose(known: Known, draft: Draft, coalescing: Coalescing, bound: Bound) -> None:
    if coalescing.use_adaptive_tx and coalescing.tx_usecs is not None:
        why = "adaptive TX would overwrite the fixed delay, and does not look at what stalls TCP"
        most = "its longest delay is the driver's choice, 128 µs with lib/dim"
        draft.coalesce("use_adaptive_tx", False, why, most, [])
    wanted = min(known.goal.tx_usecs, bound.value)
    usecs = takes_usecs(known.device, wanted)
    by = _by(known, usecs, bound)
    if usecs < wanted:
        by = f"{bound.by}, and {known.device.driver} takes no delay that short"
    sources = [known.speed_source, known.limit_source]
    if known.ring("tx") is not None:
        sources.append(known.ring_source("tx"))
    held = udp_stream(known.window, known.udp_send_buffer_bytes, usecs, known.speed_mbps)
    draft.coalesce("tx_usecs", usecs, f"{known.goal.tx_why}{tx_only(known.window, known.device)}{held}", by, sources)
    # A number of frames without a delay: what ends their wait is the driver's secret, and the number stays as it is.
    if coalescing.tx_usecs is not None or coalescing.tx_max_frames is None:
        _tx_frames(known, draft, usecs)


def _tx_frames(known: Known, draft: Draft, usecs: int) -> None:
    """The number that ends the wait early: without a delay 1, as in plan/rx.py."""
    ring = known.ring("tx")
    if ring is None:  # only where tx-usecs is not supported either
        return
    if not usecs:
        why, by = "without a delay nothing else would end the wait", "1 is the only number that keeps no packet waiting"
        draft.coalesce("tx_max_frames", 1, why, by, [])
        return
    bound = frames_bound(ring, "TX")
    frames = min(known.goal.tx_frames, bound.value)
    why = f"{frames} sent packets are freed without waiting for the time to pass"
    draft.coalesce("tx_max_frames", frames, why, _by(known, frames, bound), [known.ring_source("tx")])


def _by(known: Known, value: int, bound: Bound) -> str:
    """What keeps a value from being larger: its bound, or that the goal wants no more."""
    return bound.by if value == bound.value else f"{bound.value}: {bound.by}; goal {known.goal.name} wants no more"
