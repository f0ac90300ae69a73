"""Ever-growing counters, as one reading finds them. A Window is the difference of two readings."""

from napctl.model.histogram import EMPTY, Histogram, total
from napctl.model.overload import LoadReading
from napctl.model.value import Value

__all__ = [
    "CounterReading",
    "CpuCounts",
    "Deliveries",
    "DeviceCounts",
    "NapiCounts",
    "PollerCounts",
    "ProbeCounts",
    "QueueCounts",
    "SentCounts",
]


class PollerCounts(Value, frozen=True, kw_only=True):
    """Busy polls of one NAPI instance by one process."""

    pid: int
    name: str
    polls: int
    empty: int
    packets: int


class NapiCounts(Value, frozen=True, kw_only=True):
    """Polls of one NAPI instance, by who made them. `napi_id` 0: it has no id (TX-only, or a CPU's backlog)."""

    napi_id: int
    device: str
    """Name of the device when the probe first saw it; "(no_device)" for a CPU's backlog, as the kernel traces it."""
    ifindex: int
    netns: int
    """Inode number of the device's network namespace; 0 without a device."""
    instance: int
    """Distinguishes instances that have no id of their own; opaque, stable while the probe is loaded."""
    softirq: Histogram = EMPTY
    thread: Histogram = EMPTY
    busy_poll: Histogram = EMPTY
    netpoll: Histogram = EMPTY
    pollers: tuple[PollerCounts, ...] = ()

    @property
    def all(self) -> Histogram:
        """Polls by anybody."""
        return total((self.softirq, self.thread, self.busy_poll, self.netpoll))


class CpuCounts(Value, frozen=True, kw_only=True):
    """One CPU's interrupts and network softirqs. Times in ns; None where the source does not tell, or was set back."""

    cpu: int
    interrupts: int | None = None
    interrupt_ns: int | None = None
    net_rx_softirqs: int | None = None
    net_rx_softirq_ns: int | None = None
    time_squeezes: int | None = None
    """net_rx_action ran out of budget or time with work left (third column of /proc/net/softnet_stat)."""
    backlog_drops: int | None = None
    """Packets dropped because the CPU's backlog was full (second column of /proc/net/softnet_stat)."""


class QueueCounts(Value, frozen=True, kw_only=True):
    """One RX or TX queue (`qstats` of Documentation/netlink/specs/netdev.yaml). None: the driver does not count it."""

    kind: str
    """"rx" or "tx"."""
    index: int
    packets: int | None = None
    bytes: int | None = None
    alloc_fail: int | None = None
    """Times that no buffer could be had for a packet."""
    hw_drops: int | None = None
    """Packets that the device dropped."""


class DeviceCounts(Value, frozen=True, kw_only=True):
    """Packets and drops of one device (struct rtnl_link_stats64). None, in a window: the counter was set back."""

    device: str
    ifindex: int
    rx_packets: int | None
    tx_packets: int | None
    rx_dropped: int | None
    tx_dropped: int | None
    rx_missed: int | None
    """Packets for which the device found no free RX descriptor."""
    queues: tuple[QueueCounts, ...] | None = None
    """None: the driver keeps no counters per queue."""


class SentCounts(Value, frozen=True, kw_only=True):
    """What a network namespace sent, by protocol. One datagram may leave as many frames (UDP_SEGMENT)."""

    tcp_segments: int
    udp_datagrams: int


class Deliveries(Value, frozen=True, kw_only=True):
    """How a device without NAPI instances handed packets to the stack, since some beginning."""

    packets: int
    runs: int
    """Packets that were handed over without a pause between them are one run."""


class ProbeCounts(Value, frozen=True, kw_only=True):
    """One reading of the probe."""

    napis: tuple[NapiCounts, ...]
    cpus: tuple[CpuCounts, ...]
    lost_polls: int = 0
    """Polls that found no free place in the probe's table; 0 means that `napis` is complete."""
    lost_pollers: int = 0
    """Busy polls of which the table of pollers had no place for who made them; 0 means that `pollers` are complete."""


class CounterReading(Value, frozen=True, kw_only=True):
    """Everything that a Window needs, at one moment."""

    monotonic_ns: int
    unix_ns: int
    probe: ProbeCounts | None
    """None: the probe could not be loaded."""
    cpus: tuple[CpuCounts, ...]
    """Per CPU from /proc, times unknown; interrupts stand by themselves."""
    interrupts: dict[int, dict[int, int]]
    """By interrupt number and CPU."""
    devices: tuple[DeviceCounts, ...]
    sent: SentCounts | None = None
    """None: the kernel does not tell."""
    load: LoadReading | None = None
    """None: nobody asked for it."""
