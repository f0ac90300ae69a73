"""A Window: what happened between two readings. All claims of napctl stand on one."""

from collections.abc import Iterable

from napctl.model.counts import CpuCounts, DeviceCounts, PollerCounts, SentCounts
from napctl.model.histogram import Histogram, total
from napctl.model.latency import LatencySummary
from napctl.model.machine import SCHEMA
from napctl.model.overload import PacketLoad
from napctl.model.settings import NapiSettings
from napctl.model.value import Value

__all__ = ["EmptyPolls", "NapiWindow", "Window", "mostly_udp", "own_polls"]


class EmptyPolls(Value, frozen=True, kw_only=True):
    """Polls that found no packet, split by what may be claimed of them.

    An empty poll in softirq context, on a NAPI instance of a hardware device that has neither deferral nor busy
    polling, is nearly always an interrupt for TX completions alone (J. Kicinski's note on IRQ coalescing). Under
    deferral or busy polling it only means that a poll found nothing. What is neither is unattributed.
    """

    tx_only: int = 0
    while_polling: int = 0
    unattributed: int = 0


class NapiWindow(Value, frozen=True, kw_only=True):
    """One NAPI instance during a window. Histograms are None where no probe could count them."""

    napi_id: int
    """0: the instance has no id (TX-only instances, and each CPU's backlog)."""
    device: str
    ifindex: int
    netns: int
    queues: tuple[str, ...] = ()
    """The queues it serves: "rx0", "tx0"; empty where the driver does not tell."""
    settings: NapiSettings | None = None
    """At the end of the window; None if it belongs to no observed device."""
    settings_changed: bool = False
    """They were others at the beginning."""
    irq: int | None = None
    interrupts: int | None = None
    """Interrupts of its own interrupt line, from /proc/interrupts."""
    softirq: Histogram | None = None
    thread: Histogram | None = None
    busy_poll: Histogram | None = None
    netpoll: Histogram | None = None
    pollers: tuple[PollerCounts, ...] = ()
    empty: EmptyPolls | None = None

    @property
    def polls(self) -> Histogram:
        """Polls by anybody."""
        return total(part for part in (self.softirq, self.thread, self.busy_poll, self.netpoll) if part)


class Window(Value, frozen=True, kw_only=True):
    """Counts over a span of time."""

    schema: int = SCHEMA
    source: str
    """"bpf": from the probe, per poll; "proc": from /proc alone."""
    lacks: tuple[str, ...]
    """What this window cannot tell, and why: one sentence each."""
    started_unix_ns: int
    seconds: float
    napis: tuple[NapiWindow, ...]
    cpus: tuple[CpuCounts, ...]
    devices: tuple[DeviceCounts, ...]
    sent: SentCounts | None = None
    """By the network namespace; None where the kernel does not tell."""
    latency: LatencySummary | None = None
    """Of the server that was named; None: none was."""
    packet_load: PacketLoad | None = None
    """What packets took of each CPU; None: nobody asked for it."""

    def total(self, field: str) -> int | None:
        """Sum over CPUs of a CpuCounts field; None where the source does not tell."""
        values = [getattr(cpu, field) for cpu in self.cpus]
        return None if None in values or not values else sum(values)

    def total_per_second(self, field: str) -> float | None:
        """The same, per second."""
        total = self.total(field)
        return None if total is None else total / self.seconds


def own_polls(napis: Iterable[NapiWindow], pid: int) -> PollerCounts:
    """Busy polls of these NAPI instances by one process, summed; its name is that of its last poll."""
    mine = [poller for napi in napis for poller in napi.pollers if poller.pid == pid]
    return PollerCounts(
        pid=pid,
        name=mine[-1].name if mine else "",
        polls=sum(poller.polls for poller in mine),
        empty=sum(poller.empty for poller in mine),
        packets=sum(poller.packets for poller in mine),
    )


def mostly_udp(window: Window | None) -> bool:
    """Whether more UDP datagrams than TCP segments were sent, in the network namespace as a whole."""
    return window is not None and window.sent is not None and window.sent.udp_datagrams > window.sent.tcp_segments
