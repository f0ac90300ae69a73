"""The hard ceiling of each knob, and how far interrupts may be delayed without harm: behind every policy and plan.

Source: J. Kicinski's note on IRQ coalescing (https://people.kernel.org/kuba/easy-network-performance-wins-with-irq-coalescing),
and tcp_small_queue_check() in net/ipv4/tcp_output.c (TCP Small Queues): a flow stalls when its sent but not yet freed
bytes reach a limit, and they are freed by the TX completion that coalescing delays. The limit is two skbs or what the
flow sends at its pacing rate in 1/1024 s (sk_pacing_shift), whichever is larger; for a flow that nobody paces (neither
fq nor BBR) net.ipv4.tcp_limit_output_bytes, if that is less. A flow whose queue is empty always sends.
"""

from collections.abc import Mapping

from napctl.model.units import NS_PER
from napctl.model.value import Value

__all__ = [
    "CEILINGS",
    "FRAME_BITS",
    "HIGHEST_RATE",
    "LEAST_BUDGET_NS",
    "LEAST_NICE",
    "LEAST_THRESHOLD",
    "LONGEST_SUSPENSION_NS",
    "LONGEST_TIMER_NS",
    "MOST_ADDED_LATENCY_NS",
    "MOST_BUSY_POLL_BUDGET",
    "MOST_BUSY_POLL_USECS",
    "MOST_DEFER_HARD_IRQS",
    "MOST_NICE",
    "MOST_SPIN_USECS",
    "MOST_THRESHOLD",
    "PACED_US",
    "RING_SHARE",
    "TSQ_SAFETY",
    "TX_USECS_CEILING",
    "Bound",
    "frames_bound",
    "ring_fill_us",
    "rx_usecs_bound",
    "tx_stalls",
    "tx_usecs_bound",
    "udp_stream_mbps",
]


# Of single knobs: whoever asks, by a command or a policy, and what adapts gets no further.

LONGEST_TIMER_NS = 10 * NS_PER["s"]
"""Of gro-flush-timeout and irq-suspend-timeout, and of a latency budget, which bounds them."""
LEAST_BUDGET_NS = 1_000
"""Of a latency budget."""
LONGEST_SUSPENSION_NS = 100_000_000
"""Of irq-suspend-timeout where somebody waits for its end, as at each step to interrupts while adapting: no timer
that is adapted is longer. The kernel's documentation advises 20 ms."""
MOST_DEFER_HARD_IRQS = MOST_BUSY_POLL_USECS = 2**31 - 1
"""What the kernel takes: netdev_nl_napi_set_config() in net/core/netdev-genl.c, ep_eventpoll_bp_ioctl() in
fs/eventpoll.c."""
MOST_BUSY_POLL_BUDGET = 2**16 - 1
"""The same."""
MOST_SPIN_USECS = 10_000
"""Of busy-poll-usecs without --force: ep_busy_loop() looks for packets, and not for signals, for all that time."""
MOST_ADDED_LATENCY_NS = 10**7
"""By coalescing and deferral of a plan. Intel's drivers take no longer delay (IGB_MAX_ITR_USECS); nobody wants one."""
LEAST_THRESHOLD, MOST_THRESHOLD = 50, 99
"""Of protection, percent of a CPU. Below, one that has much to do with packets is no sign of anything."""
HIGHEST_RATE = 1_000_000_000
"""Packets a second that storm control may let pass."""
CEILINGS: Mapping[str, int] = {
    "gro_flush_timeout_ns": LONGEST_TIMER_NS,
    "irq_suspend_timeout_ns": LONGEST_TIMER_NS,
    "defer_hard_irqs": MOST_DEFER_HARD_IRQS,
    "busy_poll_usecs": MOST_BUSY_POLL_USECS,
    "busy_poll_budget": MOST_BUSY_POLL_BUDGET,
}
"""By the model's name of a setting. What is not here has its driver's, and the bounds below."""
LEAST_NICE, MOST_NICE = 0, 19
"""Of a NAPI thread. One below 0 goes before all other work, as a softirq does: what threads are for is the contrary."""

# Of delays, by link, ring and budget.

TX_USECS_CEILING = 200
"""Little is gained above (the note), µs."""
TSQ_SAFETY = 0.5
"""Share of the stall time that a delay may take; the rest is for timer slack, softirq scheduling, the poll, and the
overhead of each skb, which the kernel counts with its bytes (truesize)."""
PACED_US = 1e6 / 1024
"""What a flow sends in this time at its pacing rate, it may have unfreed (sk_pacing_shift 10, sock_init_data())."""
RING_SHARE = 0.25
"""Share of a ring that may wait for one interrupt: the rest takes what arrives until the poll has made room."""
FRAME_BITS = 1538 * 8
"""A full Ethernet frame on the wire: 1500 bytes, header, FCS, preamble and gap."""


class Bound(Value, frozen=True, kw_only=True):
    """A largest value, and what sets it."""

    value: int
    by: str


class Stall(Value, frozen=True, kw_only=True):
    """After how long without a completion a sender has to wait, and by what."""

    after_us: float
    by: str
    source: str
    """Where that is read."""


def tx_stalls(limit_bytes: int | None, speed_mbps: int | None) -> tuple[Stall, ...]:
    """When one TCP flow at link rate stalls, the soonest first, which is the one that binds.

    Each takes the least that the kernel may allow: two skbs of one full frame each, and the link's rate for the pacing
    rate, which is higher while the window grows. Without a speed the link is taken for one of more than 25 Mb/s.
    """
    two_skbs_us = ring_fill_us(2, speed_mbps) if speed_mbps is not None else 0
    rate = f" at {speed_mbps:,} Mb/s" if speed_mbps is not None else ""
    stalls = [
        Stall(
            after_us=max(PACED_US, two_skbs_us),
            by=f"two skbs, or 1/1024 s at its pacing rate, stall any TCP flow{rate}",
            source="tcp_small_queue_check()",
        )
    ]
    if limit_bytes is not None and speed_mbps is not None:
        by = f"tcp_limit_output_bytes ({limit_bytes:,}) stalls a TCP flow{rate} that neither fq nor BBR paces"
        stalls.append(Stall(after_us=limit_bytes * 8 / speed_mbps, by=by, source="/proc/sys/net/ipv4"))
    return tuple(sorted(stalls, key=lambda stall: stall.after_us))


def udp_stream_mbps(send_buffer_bytes: int, delay_us: float) -> float:
    """The most that one UDP socket can send while completions wait that long, Mb/s: one send buffer in each delay.

    Nothing but the buffer bounds it (sock_alloc_send_pskb() in net/core/sock.c). The kernel counts overhead, too, so
    that it is less; a delay of 510 µs held one stream to about 800 Mb/s where 6 Gb/s were possible (commit 417a3ae4).
    """
    return send_buffer_bytes * 8 / delay_us


def ring_fill_us(frames: int, speed_mbps: int) -> float:
    """The time in which so many full frames pass at link rate, µs."""
    return frames * FRAME_BITS / speed_mbps


def tx_usecs_bound(limit_bytes: int | None, speed_mbps: int | None, ring: int | None) -> Bound:
    """The longest safe delay of TX completions: min(200 µs, safety × time until a flow stalls, ring share)."""
    bounds = [Bound(value=TX_USECS_CEILING, by=f"little is gained above {TX_USECS_CEILING} µs")]
    stall = tx_stalls(limit_bytes, speed_mbps)[0]
    after = f"{TSQ_SAFETY:.0%} of the {stall.after_us:.0f} µs after which {stall.by}"
    bounds.append(Bound(value=int(TSQ_SAFETY * stall.after_us), by=after))
    if ring is not None and speed_mbps is not None:
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
