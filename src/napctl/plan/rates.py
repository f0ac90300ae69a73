"""What a window tells of the rate at which delays gather packets: reasons, and never values."""

from collections.abc import Iterator

from napctl.model.limits import udp_stream_mbps
from napctl.model.machine import Device
from napctl.model.window import Window, mostly_udp

__all__ = ["gathering", "tx_only", "udp_stream"]


def gathering(window: Window | None, device: Device, delay_us: int) -> str:
    """How many packets an RX delay would gather at the rate that was measured; empty if nothing was."""
    rate = _packets_per_second_of_a_queue(window, device) if window else None
    if not rate or not delay_us:
        return ""
    name, per_second = rate
    gathered = 1 + per_second * delay_us / 1e6
    if gathered < 2:
        return (
            f"; but at the {per_second:,.0f} packets/s that {name} took in the window, {delay_us} µs hardly ever "
            "gather a second packet: that load gains nothing by it"
        )
    return f"; at the {per_second:,.0f} packets/s that {name} took in the window that is about {gathered:.0f} packets"


def _packets_per_second_of_a_queue(window: Window, device: Device) -> tuple[str, float] | None:
    """(which queue, its rate): the busiest queue's, or the mean where the driver counts by device only."""
    for counts in window.devices:
        if counts.ifindex != device.ifindex or not counts.rx_packets:
            continue
        queues = [queue.packets for queue in counts.queues or () if queue.kind == "rx" and queue.packets is not None]
        busiest: int = max(queues, default=0)
        if busiest:
            return "its busiest queue", busiest / window.seconds
        number = sum(queue.kind == "rx" for queue in device.queues) or 1
        return "each queue on average" if number > 1 else "it", counts.rx_packets / number / window.seconds
    return None


def tx_only(window: Window | None, device: Device) -> str:
    """What share of polls found TX completions only; empty if that was not measured."""
    polls = found = 0
    for napi_polls, napi_found in _polls(window, device):
        polls, found = polls + napi_polls, found + napi_found
    return f"; {found / polls:.1%} of its polls in the window found TX completions only" if found else ""


def udp_stream(window: Window | None, send_buffer_bytes: int | None, delay_us: int, speed_mbps: int | None) -> str:
    """What a TX delay leaves to one UDP stream, if most of what was sent is UDP and the link takes more."""
    if not mostly_udp(window) or send_buffer_bytes is None or not delay_us:
        return ""
    rate = udp_stream_mbps(send_buffer_bytes, delay_us)
    if speed_mbps is not None and rate >= speed_mbps:
        return ""
    return (
        f"; but most of what was sent in the window is UDP, and with {delay_us} µs one UDP stream sends at most "
        f"{rate:,.0f} Mb/s: its send buffer of {send_buffer_bytes:,} bytes (wmem_default) once in that time"
    )


def _polls(window: Window | None, device: Device) -> Iterator[tuple[int, int]]:
    """(polls, those with TX completions only) of each of its NAPI instances."""
    for napi in window.napis if window else ():
        if napi.ifindex == device.ifindex and napi.device == device.name and napi.empty is not None:
            yield napi.polls.polls, napi.empty.tx_only
