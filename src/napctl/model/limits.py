"""How far interrupts may be delayed without harm: the arithmetic behind every plan and several findings.

Source: J. Kicinski's note on IRQ coalescing (https://people.kernel.org/kuba/easy-network-performance-wins-with-irq-coalescing),
and tcp_small_queue_check() in net/ipv4/tcp_output.c: a flow stalls when its sent but not yet freed bytes reach
net.ipv4.tcp_limit_output_bytes, and they are freed by the TX completion that coalescing delays.
"""

from napctl.model.value import Value

TX_USECS_CEILING = 200
"""Little is gained above (the note), µs."""
TSQ_SAFETY = 0.5
"""Share of the stall time that a delay may take; the rest is for timer slack, softirq scheduling and the poll."""
RING_SHARE = 0.25
"""Share of a ring that may wait for one interrupt: the rest takes what arrives until the poll has made room."""
FRAME_BITS = 1538 * 8
"""A full Ethernet frame on the wire: 1500 bytes, header, FCS, preamble and gap."""


class Bound(Value, frozen=True, kw_only=True):
    """A largest value, and what sets it."""

    value: int
    by: str


def tx_stall_us(limit_bytes: int, speed_mbps: int) -> float:
    """The time in which one TCP flow at link rate sends all that TCP Small Queues lets it have unfreed, µs."""
    return limit_bytes * 8 / speed_mbps


def ring_fill_us(frames: int, speed_mbps: int) -> float:
    """The time in which so many full frames pass at link rate, µs."""
    return frames * FRAME_BITS / speed_mbps


def tx_usecs_bound(limit_bytes: int | None, speed_mbps: int, ring: int | None) -> Bound:
    """The longest safe delay of TX completions: min(200 µs, safety × TSQ bytes / link rate, ring share)."""
    bounds = [Bound(value=TX_USECS_CEILING, by=f"little is gained above {TX_USECS_CEILING} µs")]
    if limit_bytes is not None:
        stall_us = tx_stall_us(limit_bytes, speed_mbps)
        by = f"tcp_limit_output_bytes ({limit_bytes:,}) stalls a TCP flow at {speed_mbps:,} Mb/s"
        after = f"{TSQ_SAFETY:.0%} of the {stall_us:.0f} µs after which {by}"
        bounds.append(Bound(value=int(TSQ_SAFETY * stall_us), by=after))
    if ring is not None:
        bounds.append(_ring_bound(ring, speed_mbps, "TX"))
    return min(bounds, key=lambda bound: bound.value)


def rx_usecs_bound(budget_ns: int, speed_mbps: int | None, ring: int | None) -> Bound:
    """The longest safe delay of RX interrupts: the latency budget, or what the ring can take at link rate if less."""
    bounds = [Bound(value=budget_ns // 1000, by=f"the latency budget of {budget_ns / 1000:g} µs")]
    if speed_mbps is not None and ring is not None:
        bounds.append(_ring_bound(ring, speed_mbps, "RX"))
    return min(bounds, key=lambda bound: bound.value)


def frames_bound(ring: int, kind: str) -> Bound:
    """The most frames that may wait for one interrupt. `kind`: "RX" or "TX"."""
    return Bound(value=max(1, int(RING_SHARE * ring)), by=f"{RING_SHARE:.0%} of the {kind} ring of {ring:,}")


def _ring_bound(ring: int, speed_mbps: int, kind: str) -> Bound:
    frames = frames_bound(ring, kind)
    return Bound(
        value=int(ring_fill_us(frames.value, speed_mbps)),
        by=f"full frames fill {frames.by} in that time at {speed_mbps:,} Mb/s",
    )
