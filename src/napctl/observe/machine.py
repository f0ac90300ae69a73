"""Take a Machine: devices, queues, NAPI instances and pollers of one network namespace, read and not changed."""

import errno
import os
from collections.abc import Callable, Collection, Iterator, Sequence

from msgspec.structs import replace

from napctl.kernel import (
    capabilities,
    epoll_instances,
    interrupts,
    napi_threads,
    open_files,
    processes,
    running_kernel,
    sockets,
    sysctl,
)
from napctl.kernel.ethtool import Ethtool
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.links import Link, called, links, links_at, links_named
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.netlink import Refused
from napctl.kernel.open_files import OpenFiles
from napctl.kernel.processes import Process
from napctl.kernel.sysfs import DeviceAttributes
from napctl.model.errors import BadInput, ChangedMeanwhile, NapctlError, Unsupported
from napctl.model.machine import (
    Coalescing,
    Device,
    DeviceDeferral,
    EpollPoller,
    Machine,
    Napi,
    Queue,
    QueueCoalescing,
    RingPoller,
)
from napctl.model.settings import DISABLED, ThreadSettings
from napctl.observe.ring_pollers import ring_pollers_of
from napctl.observe.stacked_devices import with_lower

__all__ = [
    "DISAPPEARED",
    "WHO_POLLS",
    "take_devices",
    "take_devices_again",
    "take_machine",
    "take_napi_devices",
    "who_polls",
    "with_switches",
]


DISAPPEARED = "it disappeared meanwhile: somebody removed it, or moved it to another network namespace"
FEW = 16
"""Devices of which each is asked for its NAPI instances, and the kernel not for those of all."""
WHO_POLLS = "whether these NAPI instances are polled by "
"""What is not known of a process into which we may not look begins so: who does not ask who polls can leave it out."""


def take_machine(netns: NetworkNamespace, names: Collection[str] = (), *, with_pollers: bool = True) -> Machine:
    """The named devices of a namespace, or all but loopback; and the epoll and io_uring instances that poll their NAPI
    instances, unless nobody asks for them: all processes are searched for these.

    Raises BadInput for a device that is not there, ChangedMeanwhile for one that goes meanwhile.
    """
    lacks: list[str] = []
    devices = take_devices(netns, names, lacks)
    pollers = tuple(who_polls(devices, lacks)) if with_pollers else ()
    return Machine(
        kernel=running_kernel.kernel_release(),
        netns=netns.inode,
        devices=with_lower(netns, _with_attributes(netns, devices, lacks)),
        pollers=tuple(each for each in pollers if isinstance(each, EpollPoller)),
        ring_pollers=tuple(each for each in pollers if isinstance(each, RingPoller)),
        cpus_online=running_kernel.cpus_online(),
        tcp_limit_output_bytes=sysctl.read_number(netns, "ipv4/tcp_limit_output_bytes"),
        udp_send_buffer_bytes=sysctl.read_global("core/wmem_default"),
        lacks=tuple(lacks),
    )


def take_devices(netns: NetworkNamespace, names: Collection[str], lacks: list[str]) -> tuple[Device, ...]:
    """The named devices, or all but loopback. What this kernel cannot tell is added to `lacks`.

    Raises as take_machine().
    """
    wanted = _wanted(netns, names)
    found = _taken(netns, wanted, lacks)
    if names and len(found) < len(wanted):
        # One that a driver refuses to tell of is among the lacks.
        there = {link.ifindex for link in links_at(netns, [link.ifindex for link in wanted])}
        if gone := [link.name for link in wanted if link.ifindex not in there]:
            raise ChangedMeanwhile(f"{', '.join(gone)}: {DISAPPEARED}")
    return found


def take_devices_again(netns: NetworkNamespace, indexes: Collection[int]) -> tuple[Device, ...]:
    """The devices with these interface indexes, whatever they are called by now; those that have gone are missing."""
    return _taken(netns, links_at(netns, indexes), [])


def _taken(netns: NetworkNamespace, wanted: Collection[Link], lacks: list[str]) -> tuple[Device, ...]:
    few = [link.ifindex for link in wanted] if len(wanted) <= FEW else None
    napis, queues = _instances(netns, lacks, few)
    with Ethtool(netns) as ethtool, EthtoolIoctl(netns) as ioctl:
        found = (_device_or_none(link, ethtool, ioctl, napis, queues, lacks) for link in wanted)
        return tuple(device for device in found if device is not None)


def take_napi_devices(netns: NetworkNamespace) -> tuple[Device, ...]:
    """All devices that have NAPI instances: these, their queues, and the driver's name; the rest of a Device is unread,
    and so is the one switch for the threads of all its instances (with_switches()).

    A question to the driver about anything else may take its locks, and a message to the NIC's firmware.
    """
    napis, queues = _instances(netns, [])
    having = {napi.ifindex for napi in napis}
    new = napi_threads.new_thread()
    found = []
    with EthtoolIoctl(netns) as ioctl:
        for link in links(netns) if having else ():
            if link.ifindex in having:
                driver = ioctl.driver(link.name)
                found.append(
                    Device(
                        name=link.name,
                        ifindex=link.ifindex,
                        up=link.up,
                        driver=driver[0] if driver else None,
                        queues=tuple(queue for queue in queues if queue.ifindex == link.ifindex),
                        napis=tuple(
                            _with_thread(_with_cpus(napi), None, new) for napi in napis if napi.ifindex == link.ifindex
                        ),
                    )
                )
    return tuple(found)


def with_switches(netns: NetworkNamespace, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """With `thread` where the kernel has one switch for all instances of a device (before Linux 6.17): there a thread
    outlives its being switched off, and is told of as before. Then polls follow the interrupt."""
    if all(napi.settings.threaded is not None for device in devices for napi in device.napis):
        return devices
    return tuple(
        replace(device, napis=tuple(map(_of_whoever_polls, device.napis)))
        for device in _with_attributes(netns, devices, [])
    )


def _of_whoever_polls(napi: Napi) -> Napi:
    is_left = napi.thread_pid is not None and napi.thread is not None and napi.thread.threaded == DISABLED
    return replace(napi, cpus=interrupts.affinity(napi.irq) if napi.irq is not None else None) if is_left else napi


def _wanted(netns: NetworkNamespace, names: Collection[str]) -> list[Link]:
    if not names:
        return [link for link in links(netns) if not link.loopback]
    try:
        return called(links_named(netns, names), names)
    except BadInput:
        return called(links(netns), names)  # which says what there is instead


def _instances(
    netns: NetworkNamespace, lacks: list[str], ifindexes: Sequence[int] | None = None
) -> tuple[list[Napi], list[Queue]]:
    """Of these devices (None: of all)."""
    asked: Sequence[int | None] = [None] if ifindexes is None else ifindexes
    try:
        with Netdev(netns) as netdev:
            napis = [napi for each in asked for napi in netdev.napis(each)]
            return napis, [queue for each in asked for queue in netdev.queues(each)]
    except Unsupported as error:
        lacks.append(f"NAPI instances and queues: {error}")
        return [], []


def _device_or_none(
    link: Link, ethtool: Ethtool, ioctl: EthtoolIoctl, napis: list[Napi], queues: list[Queue], lacks: list[str]
) -> Device | None:
    """None if it has gone since it was listed; one driver's refusal does not hide the other devices."""
    try:
        return _device(link, ethtool, ioctl, napis, queues)
    except Refused as refusal:
        if refusal.errno != errno.ENODEV:
            lacks.append(f"{link.name}: {refusal}")
        return None


def _device(link: Link, ethtool: Ethtool, ioctl: EthtoolIoctl, napis: list[Napi], queues: list[Queue]) -> Device:
    driver = ioctl.driver(link.name)
    coalescing = ethtool.coalescing(link.ifindex)
    own_queues = tuple(queue for queue in queues if queue.ifindex == link.ifindex)
    return Device(
        name=link.name,
        alternative_names=link.alternative_names,
        ifindex=link.ifindex,
        up=link.up,
        driver=driver[0] if driver else None,
        bus=driver[1] if driver and not link.virtual else None,  # tun says "tun", a bridge "N/A"
        kind=link.kind,
        speed_mbps=ethtool.speed_mbps(link.ifindex),
        coalescing=coalescing,
        queue_coalescing=_queue_coalescing(ioctl, link.name, coalescing, {queue.index for queue in own_queues}),
        rings=ethtool.rings(link.ifindex),
        channels=ethtool.channels(link.ifindex),
        queues=own_queues,
        napis=tuple(_with_cpus(napi) for napi in napis if napi.ifindex == link.ifindex),
    )


def _queue_coalescing(
    ioctl: EthtoolIoctl, device: str, wide: Coalescing | None, queues: Collection[int]
) -> tuple[QueueCoalescing, ...]:
    """Of each queue; empty if the driver has none per queue, which the first one tells."""
    if wide is None:
        return ()
    found = []
    for queue in sorted(queues):
        coalescing = ioctl.queue_coalescing(device, queue, wide)
        if coalescing is None:
            return ()
        found.append(QueueCoalescing(queue=queue, coalescing=coalescing))
    return tuple(found)


def _with_attributes(netns: NetworkNamespace, devices: tuple[Device, ...], lacks: list[str]) -> tuple[Device, ...]:
    """With what no netlink message tells: device-wide deferral, and how NAPI threads are scheduled."""
    deferral: dict[str, DeviceDeferral | None] = {}
    threaded: dict[str, str | None] = {}
    try:
        with DeviceAttributes(netns) as attributes:
            for device in devices:
                deferral[device.name] = _deferral(attributes, device.name)
                if any(napi.settings.threaded is None for napi in device.napis):  # before Linux 6.17
                    threaded[device.name] = napi_threads.device_threaded(attributes, device.name)
    except NapctlError as error:
        lacks.append(f"device-wide deferral: {error}")
    new = napi_threads.new_thread()
    return tuple(
        replace(
            device,
            deferral=deferral.get(device.name),
            napis=tuple(_with_thread(each, threaded.get(device.name), new) for each in device.napis),
        )
        for device in devices
    )


def _with_thread(napi: Napi, of_device: str | None, new: tuple[int, str]) -> Napi:
    """`new`: nice value and CPUs of a thread that begins."""
    threaded = napi.settings.threaded or of_device
    if threaded is None:
        return napi
    nice, cpus = (napi_threads.scheduled(napi.thread_pid) if napi.thread_pid else None) or new
    return replace(napi, thread=ThreadSettings(threaded=threaded, nice=nice, cpus=cpus))


def _deferral(attributes: DeviceAttributes, device: str) -> DeviceDeferral | None:
    defer, flush = (attributes.read(device, name) for name in ("napi_defer_hard_irqs", "gro_flush_timeout"))
    return DeviceDeferral(defer_hard_irqs=int(defer), gro_flush_timeout_ns=int(flush)) if defer and flush else None


def _with_cpus(napi: Napi) -> Napi:
    """A NAPI thread polls on the CPUs of the thread, otherwise polls follow the interrupt."""
    cpus = _thread_cpus(napi.thread_pid) if napi.thread_pid else None
    if cpus is None and napi.irq is not None:
        cpus = interrupts.affinity(napi.irq)
    return replace(napi, cpus=cpus)


def _thread_cpus(pid: int) -> str | None:
    try:
        return ",".join(map(str, sorted(os.sched_getaffinity(pid))))
    except OSError:  # another PID namespace's thread
        return None


Seen = Callable[[Process, OpenFiles | None], None]
"""Told of each process and what it has open (None: that is not ours to see)."""


def who_polls(
    devices: tuple[Device, ...], lacks: list[str], seen: Seen | None = None
) -> Iterator[EpollPoller | RingPoller]:
    """Epoll and io_uring instances that busy poll, and whose sockets are fed by these devices, of any process.

    `seen`: who wants to know more of all processes need not list the descriptors of each once more.
    """
    ours = {napi.napi_id for device in devices for napi in device.napis}
    hidden: list[str] = []
    too_old = False
    for process in processes.processes():
        files = None
        try:
            files = open_files.open_files(process.pid)
            if not too_old:
                yield from _pollers_of(process, files, ours)
            yield from ring_pollers_of(process, files, ours)
        except OSError as error:
            too_old |= error.errno == errno.ENOTTY
            if isinstance(error, PermissionError):  # else: gone meanwhile
                hidden.append(f"{process.name} ({process.pid})")
        if seen is not None:
            seen(process, files)
        elif too_old:
            break
    if too_old:
        lacks.append("busy-poll parameters of epoll instances: this kernel is older than Linux 6.9")
    elif hidden:
        why = capabilities.why_refused(capabilities.held(), everywhere=capabilities.in_initial_user_namespace())
        lacks.append(f"{WHO_POLLS}{_counted(hidden)}: {why}")


def _counted(names: list[str]) -> str:
    """As an ordinary user there are hundreds."""
    return names[0] if len(names) == 1 else f"{len(names)} processes, such as {names[0]}"


def _pollers_of(process: Process, files: OpenFiles, ours: set[int]) -> Iterator[EpollPoller]:
    if not files.epolls:
        return
    with processes.Handle.of(process) as handle:
        for each in epoll_instances.epoll_instances(
            handle,
            files,
            sockets.incoming_napi_id,
            most_sockets=epoll_instances.SAMPLE,
            wanted=lambda params: params.polls,
        ):
            napi_ids = {napi_id for napi_id in each.told.values() if napi_id}
            if ours & napi_ids:
                yield EpollPoller(
                    pid=process.pid,
                    name=process.name,
                    epoll_fd=each.fd,
                    params=each.params,
                    napi_ids=tuple(sorted(napi_ids)),
                )
