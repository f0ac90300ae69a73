"""How a machine takes its packets: devices, queues, NAPI instances, interrupts, and who polls.

None always means: the driver or kernel does not tell, or does not have it.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta

from napctl.model.settings import EpollParams, NapiSettings, ThreadSettings
from napctl.model.value import Value

__all__ = [
    "DIM_LEVELS",
    "SCHEMA",
    "U32",
    "Channels",
    "Coalescing",
    "Device",
    "DeviceDeferral",
    "DimProfile",
    "EpollPoller",
    "LowerDevice",
    "Machine",
    "Napi",
    "Queue",
    "QueueCoalescing",
    "QueueUse",
    "Rings",
    "UserSpaceDevice",
    "XdpPrograms",
    "attached",
    "leases",
    "lessee",
    "levels_text",
    "threads_together",
]


SCHEMA = 1
"""Version of the JSON that `status` and `watch` print; docs/json.md describes it."""

U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
"""What fits into the kernel's attribute."""


class Napi(Value, frozen=True, kw_only=True):
    """One NAPI instance."""

    napi_id: int
    ifindex: int
    irq: int | None
    """Interrupt number, if the driver tells it."""
    cpus: str | None = None
    """CPUs that its interrupt (or NAPI thread) may run on, as a kernel list: "0-3,8"."""
    thread_pid: int | None = None
    """Process id of its NAPI thread; None while polls run in softirq."""
    thread: ThreadSettings | None = None
    """What its thread has, or a new one would begin with; None: no switch for it here, or it was not read."""
    settings: NapiSettings


class QueueUse(Value, frozen=True, kw_only=True):
    """Who takes what a queue receives besides, or in place of, the kernel's stack (queue-get of netdev.yaml)."""

    kind: Literal["AF_XDP", "io_uring", "device memory", "lease"]
    """`AF_XDP`: a socket is bound to it (Linux 6.15, commit df524c8f5771). `io_uring`: zero copy into a ring's memory
    (commit dcc0113acd3b). `lease`: another device, mostly a container's netkit, has it."""
    ifindex: int | None = None
    """Of the device that has it by lease."""
    queue: int | None = None
    """Which queue of that device it is."""
    netns_id: int | None = None
    """By which number our network namespace knows that device's; None: it is the same one."""


class Queue(Value, frozen=True, kw_only=True):
    """One RX or TX queue and the NAPI instance that serves it."""

    ifindex: int
    kind: str
    """"rx" or "tx"."""
    index: int
    napi_id: int | None
    uses: tuple[QueueUse, ...] = ()
    """Empty: the stack alone has it, or this kernel does not tell."""


DIM_LEVELS = 5
"""Levels of a profile: NET_DIM_PARAMS_NUM_PROFILES in include/linux/dim.h."""


class DimProfile(Value, frozen=True, kw_only=True):
    """One of the levels that adaptive coalescing walks (lib/dim/net_dim.c).

    A driver that takes them from user space (Linux 6.11, commit f750dfe825b9) may lack one of the three.
    """

    usecs: U32 | None = None
    pkts: U32 | None = None
    comps: U32 | None = None


def levels_text(levels: Iterable[DimProfile]) -> str:
    """A profile on one line, each level as usecs/pkts (and /comps, where the driver has it): "1/256 8/256 64/256"."""
    return " ".join(
        "/".join("-" if part is None else str(part) for part in (level.usecs, level.pkts))
        + ("" if level.comps is None else f"/{level.comps}")
        for level in levels
    )


class Coalescing(Value, frozen=True, kw_only=True):
    """Interrupt coalescing: every attribute of ethtool's netlink family (Documentation/netlink/specs/ethtool.yaml).

    None: the driver does not have the setting. Times in µs unless the name says otherwise.
    """

    rx_usecs: U32 | None = None
    rx_max_frames: U32 | None = None
    rx_usecs_irq: U32 | None = None
    rx_max_frames_irq: U32 | None = None
    tx_usecs: U32 | None = None
    tx_max_frames: U32 | None = None
    tx_usecs_irq: U32 | None = None
    tx_max_frames_irq: U32 | None = None
    stats_block_usecs: U32 | None = None
    use_adaptive_rx: bool | None = None
    use_adaptive_tx: bool | None = None
    pkt_rate_low: U32 | None = None
    rx_usecs_low: U32 | None = None
    rx_max_frames_low: U32 | None = None
    tx_usecs_low: U32 | None = None
    tx_max_frames_low: U32 | None = None
    pkt_rate_high: U32 | None = None
    rx_usecs_high: U32 | None = None
    rx_max_frames_high: U32 | None = None
    tx_usecs_high: U32 | None = None
    tx_max_frames_high: U32 | None = None
    rate_sample_interval: U32 | None = None
    use_cqe_mode_tx: bool | None = None
    use_cqe_mode_rx: bool | None = None
    tx_aggr_max_bytes: U32 | None = None
    tx_aggr_max_frames: U32 | None = None
    tx_aggr_time_usecs: U32 | None = None
    rx_profile: tuple[DimProfile, ...] | None = None
    tx_profile: tuple[DimProfile, ...] | None = None
    rx_cqe_frames: U32 | None = None
    rx_cqe_nsecs: U32 | None = None


class QueueCoalescing(Value, frozen=True, kw_only=True):
    """Coalescing of one queue pair, where the driver has it per queue."""

    queue: U32
    coalescing: Coalescing


class Rings(Value, frozen=True, kw_only=True):
    """Descriptors of the RX and TX rings, now and at most."""

    rx: int | None = None
    rx_max: int | None = None
    tx: int | None = None
    tx_max: int | None = None


class Channels(Value, frozen=True, kw_only=True):
    """Queues in use and at most, as the driver groups them."""

    rx: int | None = None
    rx_max: int | None = None
    tx: int | None = None
    tx_max: int | None = None
    combined: int | None = None
    combined_max: int | None = None


class DeviceDeferral(Value, frozen=True, kw_only=True):
    """Device-wide deferral (sysfs: napi_defer_hard_irqs, gro_flush_timeout): what new NAPI instances start with."""

    defer_hard_irqs: int
    gro_flush_timeout_ns: int


class LowerDevice(Value, frozen=True, kw_only=True):
    """A device that takes the packets of another one, such as the NIC below a VLAN or a port of a bond."""

    name: str | None
    """None: it cannot be seen from here."""
    ifindex: int
    through: tuple[str, ...] = ()
    """Devices between the two, from above."""
    elsewhere: bool = False
    """It is in another network namespace than the upper one."""
    netns: str | None = ""
    """What --netns takes for its namespace; empty: it is ours; None: no process and no name shows it."""


class XdpPrograms(Value, frozen=True, kw_only=True):
    """XDP programs of a device by their ids; None: there is none."""

    native: int | None = None
    """In the driver, before an skb is made of the packet."""
    generic: int | None = None
    """After that, by the stack: it saves little."""
    offloaded: int | None = None
    """In the NIC itself."""
    driver_has_native: bool | None = None
    """Whether the driver says that it takes programs; None: it cannot be told (before Linux 6.3)."""


class Device(Value, frozen=True, kw_only=True):
    """One network device."""

    name: str
    alternative_names: tuple[str, ...] = ()
    """By which it is found as well (`ip link property add`)."""
    ifindex: int
    up: bool
    driver: str | None = None
    bus: str | None = None
    """Where it sits, for example a PCI address; None for software devices."""
    kind: str | None = None
    """As `ip link` names it: "vlan", "bond" …; None for a NIC."""
    lower: tuple[LowerDevice, ...] = ()
    """Devices that take its packets, and whose settings are meant; empty: it does itself."""
    speed_mbps: int | None = None
    coalescing: Coalescing | None = None
    """None: the driver has no coalescing."""
    queue_coalescing: tuple[QueueCoalescing, ...] = ()
    """Empty: the driver has it device-wide only."""
    rings: Rings | None = None
    channels: Channels | None = None
    deferral: DeviceDeferral | None = None
    """None: the kernel does not have it, or it could not be read."""
    xdp: XdpPrograms | None = None
    """None: it has none, or it was not read."""
    queues: tuple[Queue, ...] = ()
    napis: tuple[Napi, ...] = ()


class EpollPoller(Value, frozen=True, kw_only=True):
    """An epoll instance whose waiting task polls NAPI instances itself."""

    pid: int
    name: str
    epoll_fd: int
    params: EpollParams
    napi_ids: tuple[int, ...]
    """NAPI ids of the sockets that it watches."""


class UserSpaceDevice(Value, frozen=True, kw_only=True):
    """A NIC that a program drives itself (vfio, uio): the kernel has no network device of it, and nothing to set."""

    bus: str
    """Its PCI address."""
    driver: str
    """What hands it out: "vfio-pci", "uio_pci_generic", "igb_uio"."""


class Machine(Value, frozen=True, kw_only=True):
    """One network namespace of one machine, at one moment."""

    schema: int = SCHEMA
    kernel: str
    netns: int
    """Inode number of the network namespace."""
    devices: tuple[Device, ...]
    pollers: tuple[EpollPoller, ...]
    user_space: tuple[UserSpaceDevice, ...] = ()
    """Of the whole machine, whatever the network namespace."""
    cpus_online: str | None = None
    """As a kernel list; None: not read."""
    tcp_limit_output_bytes: int | None = None
    """TCP Small Queues' limit of this namespace (net.ipv4.tcp_limit_output_bytes)."""
    udp_send_buffer_bytes: int | None = None
    """What a UDP socket may have sent and not yet freed, unless it asks for another buffer (net.core.wmem_default)."""
    lacks: tuple[str, ...] = ()
    """What could not be read, and why: one sentence each."""


def threads_together(device: Device) -> bool:
    """Whether the kernel switches the threads of all its instances at once (before Linux 6.17)."""
    return any(napi.thread is not None and napi.settings.threaded is None for napi in device.napis)


def attached(napi: Napi) -> bool:
    """Whether IRQ suspension is set on the instance: its deferral belongs to whoever set that."""
    return bool(napi.settings.irq_suspend_timeout_ns)


def leases(device: Device) -> tuple[tuple[int | None, str], ...]:
    """Of each of its queues that another device has: the NAPI instance, and that in words.

    What is set of such a queue is that one's affair.
    """
    return tuple(
        (queue.napi_id, f"{queue.kind}{queue.index} of {device.name} is leased to {lessee(use)}")
        for queue in device.queues
        for use in queue.uses
        if use.kind == "lease"
    )


def lessee(use: QueueUse) -> str:
    """Who has a leased queue."""
    where = "" if use.netns_id is None else f" of network namespace {use.netns_id} (ip netns list-id)"
    return f"queue {use.queue} of interface {use.ifindex}{where}"
