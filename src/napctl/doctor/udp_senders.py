"""The rule about UDP senders: no queue limit of TCP's, but a send buffer that late completions keep full."""

from collections.abc import Iterator

from napctl.doctor.coalescing import DEFERRAL_TIMER, LOADED_PACKETS_PER_SECOND, tx_delays
from napctl.doctor.facts import Rule, no_coalescing, no_hardware, no_speed, plan_commands
from napctl.model.finding import Checkup, Evidence, Finding
from napctl.model.limits import udp_stream_mbps
from napctl.model.machine import Device
from napctl.model.window import mostly_udp

__all__ = ["RULES"]


FRAME_TRUESIZE = 2304
"""What a full frame takes of the send buffer: 2 KiB of data and its struct sk_buff."""
HELD = (
    "sock_alloc_send_pskb() in net/core/sock.c; a delay of 510 µs held one UDP stream to about 800 Mb/s where 6 Gb/s "
    "were possible (commit 417a3ae4)"
)


def udp_held_by_tx_delay(seen: Checkup) -> Iterator[Finding]:
    """A TX delay in which one UDP socket cannot send at link rate, where UDP is what is sent."""
    buffer, sent = seen.machine.udp_send_buffer_bytes, seen.window.sent
    if buffer is None or sent is None or not mostly_udp(seen.window):
        return
    for device in seen.machine.devices:
        if device.bus is None or device.speed_mbps is None or not _is_loaded(seen, device):
            continue
        for delay_us, setting in tx_delays(device):
            rate = udp_stream_mbps(buffer, delay_us)
            if rate >= device.speed_mbps or _frames_end_it(device, setting, buffer):
                continue
            yield Finding(
                rule="udp-held-by-tx-delay",
                severity="cost",
                where=device.name,
                title=f"one UDP stream sends at most {rate:,.0f} of {device.speed_mbps:,} Mb/s",
                evidence=(
                    Evidence(text=f"TX completions may wait {delay_us:,.0f} µs ({setting})", source="ethtool netlink"
                             if setting != DEFERRAL_TIMER else "netdev netlink"),
                    Evidence(text=f"a UDP socket may have {buffer:,} bytes unfreed (wmem_default)",
                             source="/proc/sys/net/core"),
                    Evidence(text=f"{sent.udp_datagrams:,} UDP datagrams and {sent.tcp_segments:,} TCP segments were "
                             "sent", source="/proc/net/snmp"),
                ),
                consequence="A socket whose send buffer is full waits for the completion of what it sent; nothing else "
                "bounds UDP. Several sockets together can send more, and with the kernel's overhead one sends less.",
                remedy="Lower the delay, or let the sender have a larger buffer (SO_SNDBUF, net.core.wmem_default).",
                commands=plan_commands(device.name),
                certainty="possible",
                basis=HELD,
            )  # fmt: skip


def _is_loaded(seen: Checkup, device: Device) -> bool:
    sent = sum(counts.tx_packets or 0 for counts in seen.window.devices if counts.ifindex == device.ifindex)
    return sent >= LOADED_PACKETS_PER_SECOND * seen.window.seconds


def _frames_end_it(device: Device, setting: str, buffer: int) -> bool:
    """Whether so many frames raise the interrupt before they fill the buffer. Deferral masks it."""
    frames = device.coalescing.tx_max_frames if device.coalescing else None
    return setting != DEFERRAL_TIMER and bool(frames) and (frames or 0) * FRAME_TRUESIZE < buffer


RULES = (Rule("udp-held-by-tx-delay", udp_held_by_tx_delay, (no_hardware, no_coalescing, no_speed)),)
