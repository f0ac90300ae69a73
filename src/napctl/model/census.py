"""A Census: which packets are taken how, queue by queue, and which programs take them past the kernel, or spin."""

from typing import Literal

from napctl.model.machine import SCHEMA
from napctl.model.value import Value

__all__ = [
    "NO_BYPASS",
    "BypassShare",
    "Census",
    "CensusDevice",
    "HandedTo",
    "Poller",
    "PollerKind",
    "QueueWay",
    "SpinningThread",
    "TakenBy",
    "TakenWay",
    "XdpSocket",
]


TakenBy = Literal[
    "interrupts", "deferral", "suspension", "busy polling", "NAPI thread", "spinning NAPI thread", "netpoll",
    "backlog", "lower device",
]  # fmt: skip
"""Who polls a queue. `deferral`: the softirq as well, at a timer in place of the interrupt. `suspension`: an
application polls while it finds packets, and the queue's interrupts stay masked meanwhile. `backlog`: handed over in
software, to the CPU. `lower device`: another device takes them."""

HandedTo = Literal[
    "XDP native", "XDP generic", "XDP offload", "AF_XDP", "io_uring zero copy", "device memory", "leased",
    "user-space driver", "hardware offload",
]  # fmt: skip
"""Where packets go in place of, or before, the kernel's stack."""

PollerKind = Literal[
    "DPDK",
    "Open vSwitch with DPDK",
    "VPP",
    "Onload",
    "VMA",
    "XLIO",
    "RDMA",
    "F-Stack",
    "Seastar",
    "AF_XDP",
    "user-space driver",
    "busy, no NIC",
    "not known",
]
"""`busy, no NIC`: it computes or spins, which cannot be told apart. `not known`: it may not be looked into."""
NO_BYPASS: tuple[PollerKind, ...] = ("busy, no NIC", "not known")
"""Kinds that are not called a bypass."""


class TakenWay(Value, frozen=True, kw_only=True):
    """One way by which packets of a queue, or of a device, are taken."""

    kind: TakenBy | HandedTo
    by: str | None = None
    """Who: "memcached (5488)", "program 24 (lb)", "device 8 of another network namespace"; None: that says the kind."""
    packets: int | None = None
    """Within the window; None: nobody counts them."""
    share: float | None = None
    """Of the packets of this queue or device, 0 … 1; None: not counted, or there were none."""
    evidence: tuple[str, ...] = ()
    """What shows it, with where it was read: "irq-suspend-timeout 20ms [netdev netlink]"."""


class QueueWay(Value, frozen=True, kw_only=True):
    """The queues that one NAPI instance serves, or one queue of which no instance is known."""

    device: str
    ifindex: int
    queues: tuple[str, ...]
    """"rx0", "tx0"; empty: the driver does not tell."""
    napi_id: int | None
    """None: the driver does not tell."""
    packets: int | None
    """That its polls brought within the window; None: not counted."""
    polled: tuple[TakenWay, ...]
    """By whom, most packets first: their shares are of `packets`. Without packets, those who would poll."""
    handed: tuple[TakenWay, ...] = ()
    """Past the kernel's stack, or on the way to it."""

    @property
    def hands_off(self) -> bool:
        """Whether somebody else drives it, so that no setting of it is ours to change."""
        return any(way.kind == "leased" for way in self.handed)


class CensusDevice(Value, frozen=True, kw_only=True):
    """One device."""

    name: str
    """Of one that has a user-space driver, its address on the bus: the kernel has no name for it."""
    ifindex: int | None
    """None: it is no network device of the kernel."""
    driver: str | None
    bus: str | None
    up: bool | None
    """None: the kernel cannot know."""
    rx_packets: int | None
    """Within the window, by its driver; None: not told, or set back."""
    queues: tuple[QueueWay, ...] = ()
    polled: tuple[TakenWay, ...] = ()
    """Of one without queues or NAPI instances of its own; empty: they say it, or it is not known."""
    handed: tuple[TakenWay, ...] = ()
    """What holds for the device as a whole: XDP programs, offload, a user-space driver."""

    @property
    def hands_off(self) -> bool:
        """Whether somebody else drives all of it."""
        return any(way.kind == "user-space driver" for way in self.handed)


class SpinningThread(Value, frozen=True, kw_only=True):
    """A thread that polls, and for which 100 % of a CPU therefore means nothing."""

    tid: int
    name: str
    cpu: int | None
    """The one on which it may run, or on which it ran last."""
    run_share: float
    """Of one CPU within the window, 0 … 1."""
    work_share: float | None = None
    """How much of a CPU was work, by the program's own account; None: it gives none."""
    most_work_share: float | None = None
    """How much of a CPU can have been work at most; None: no bound yet."""
    source: str = ""
    """Where that is from: "DPDK telemetry /eal/lcore/usage", "12 k packets/s of at most 0.3 µs, its busiest window"."""
    estimated_work_share: float | None = None
    """The same, estimated from counters of the CPU: where the program gives no account, and that says more than the
    bound. None: there is no estimate."""
    estimate_source: str = ""
    """Where that is from, or why there is none; empty: nobody counted."""


class BypassShare(Value, frozen=True, kw_only=True):
    """Whether a program really goes past the kernel: packets by its port against packets by the kernel's stack."""

    port_packets: int | None = None
    """Within the window, by the program's own count; None: it gives none."""
    kernel_packets: int | None = None
    """Within the window, by the kernel on the same devices, or on the program's sockets; None: not counted."""
    lost: int | None = None
    """Packets for which it had no place within the window, as it does not keep up; None: not told."""
    copies: bool = False
    """Its port brings copies: the kernel takes all of them as well, and nothing goes past it."""
    seconds: float | None = None
    """How long its own window was: from when it was asked to when it was asked again; None: that of the Census."""
    source: str = ""

    @property
    def share(self) -> float | None:
        """Of both together, those that went past the kernel; None: not known, or there were none."""
        if self.port_packets is None or self.kernel_packets is None:
            return None
        if self.copies:
            return 0.0
        both = self.port_packets + self.kernel_packets
        return self.port_packets / both if both else None


class Poller(Value, frozen=True, kw_only=True):
    """A process that takes packets past the kernel's stack, or keeps a CPU busy."""

    pid: int
    started_ticks: int
    """Clock ticks after boot: tells it from a later process with the same pid."""
    name: str
    kind: PollerKind
    evidence: tuple[str, ...] = ()
    """What shows it, best first: "librte_eal.so.23 in its maps", "/run/dpdk/rte/dpdk_telemetry.v2 answers"."""
    devices: tuple[str, ...] = ()
    """From which it takes packets: names of network devices, or addresses on the bus."""
    threads: tuple[SpinningThread, ...] = ()
    """Those that spin, busiest first."""
    really: BypassShare | None = None
    """None: it is no bypass, or nothing is counted."""
    remedy: str = ""
    """What napctl, or the program itself, can do about it."""
    trouble: str | None = None
    """What could not be seen of it, and why; None: nothing."""


class XdpSocket(Value, frozen=True, kw_only=True):
    """A socket of AF_XDP that is bound to one queue of a device."""

    device: str
    queue: int
    zero_copy: bool | None
    """None: not told."""
    holders: tuple[tuple[int, str], ...] = ()
    """Pid and name of the processes that have it; several where the kernel does not tell which of them; empty: not
    known."""
    prefers_busy_poll: bool | None = None
    """SO_PREFER_BUSY_POLL; None: nobody of whom it may be read, or several may have it, of whom some do."""


class Census(Value, frozen=True, kw_only=True):
    """Everything at once, over a window."""

    schema: int = SCHEMA
    seconds: float
    netns: int
    """Inode number of the network namespace whose devices these are; processes are those of the whole machine."""
    devices: tuple[CensusDevice, ...]
    pollers: tuple[Poller, ...]
    missing: tuple[str, ...] = ()
    """What could not be seen, and why: one line each."""
