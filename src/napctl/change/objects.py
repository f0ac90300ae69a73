"""What a change is made on: found again by what the journal recorded, read and written as one block of settings."""

import errno
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Protocol, Self

from msgspec.structs import replace

from napctl.change.io_uring_block import io_uring_block
from napctl.change.storm_objects import opened_storm_control, opened_storm_limits
from napctl.change.thread_block import thread_block
from napctl.kernel import epoll, processes, sockets
from napctl.kernel.epoll_instances import copy_of_epoll, copy_of_socket
from napctl.kernel.ethtool import Ethtool
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.links import Link, links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.model.change import (
    Change,
    ChannelsChange,
    CoalescingChange,
    DeviceChange,
    EpollChange,
    Holder,
    InstanceChange,
    IoUringChange,
    NapiChange,
    RingsChange,
    SocketChange,
    Steered,
    SteeringChange,
    ThreadChange,
    Transaction,
)
from napctl.model.errors import Away
from napctl.model.machine import Coalescing
from napctl.model.plan import ChannelCounts, RingSizes
from napctl.model.settings import NapiSettings
from napctl.model.storm_change import StormControlChange, StormLimitsChange
from napctl.model.value import Value

__all__ = ["Places", "SettingsBlock", "opened", "recognisable"]


GONE = (errno.ESRCH, errno.ENOENT, errno.EBADF, errno.ENOTTY, errno.EINVAL)
"""What a descriptor of an ended process says, or one that is closed, or by now something that is no epoll instance."""


class SettingsBlock(Protocol):
    """One block of settings of the running kernel. Its fields are those of the change's `before`."""

    def read(self) -> Value | None:
        """All of it; None if it is gone."""

    def write(self, values: Mapping[str, Any]) -> None:
        """Set these fields and no others. Raises Refused or OSError."""


class Places:
    """Network namespaces by inode number, each searched for once. Use as a context manager."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._ours = self._open.enter_context(NetworkNamespace.current())
        self._found: dict[int, NetworkNamespace | None] = {self._ours.inode: self._ours}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def candidates(self, inode: int, cookie: int = 0) -> list[NetworkNamespace]:
        """Where a device of that namespace may be: there; or in ours, to which the kernel gives a NIC back when its
        container ends (default_device_exit_net() in net/core/dev.c). Cookie 0: not known."""
        if inode not in self._found:
            found = NetworkNamespace.find(inode)
            self._found[inode] = self._open.enter_context(found) if found else None
        own = self._found[inode]
        if own is not None and cookie not in (0, own.cookie):  # its inode number was given to another
            own = None
        return [self._ours] if own in (None, self._ours) else [own, self._ours]


@contextmanager
def opened(change: Change, places: Places) -> Iterator[SettingsBlock | None]:
    """The target of a change; None if it is gone. Raises Unsupported for one that is hidden, NotPermitted, OSError."""
    match change:
        case EpollChange():
            with _epoll(change) as target:
                yield target
        case IoUringChange():
            with io_uring_block(change) as target:
                yield target
        case SocketChange() | SteeringChange():
            with _socket(change) as target:
                yield target
        case NapiChange():
            with _napi(change, places) as target:
                yield target
        case ThreadChange():
            with _thread(change, places) as target:
                yield target
        case StormControlChange():
            with opened_storm_control(change, places.candidates(change.netns)) as target:
                yield target
        case StormLimitsChange():
            with opened_storm_limits(change) as target:
                yield target
        case CoalescingChange() | RingsChange() | ChannelsChange():
            with _device(change, places) as target:
                yield target


class _EpollTarget:
    def __init__(self, place: Holder, fd: int):
        self._place, self._fd = place, fd

    def read(self) -> Value | None:
        params = epoll.params(self._fd)
        found = processes.process(self._place.pid)  # our copy keeps the instance of a process that has ended
        return params if found and found.started_ticks == self._place.started_ticks else None

    def write(self, values: Mapping[str, Any]) -> None:
        epoll.set_params(self._fd, replace(epoll.params(self._fd), **values))


@contextmanager
def _epoll(change: EpollChange) -> Iterator[SettingsBlock | None]:
    """Through whoever holds it by now."""
    with ExitStack() as stack:
        found = (_held_epoll(stack, place) for place in change.holders)
        yield next((target for target in found if target is not None), None)


def _held_epoll(stack: ExitStack, place: Holder) -> SettingsBlock | None:
    try:
        handle = stack.enter_context(processes.Handle(place.pid))
        target = _EpollTarget(place, stack.enter_context(copy_of_epoll(handle, place.fd)))
        return target if target.read() is not None else None
    except OSError as error:
        if error.errno not in GONE:
            raise
        return None


class _SocketTarget:
    def __init__(self, change: SocketChange, fd: int):
        self._change, self._fd = change, fd

    def read(self) -> Value | None:
        return sockets.polling(self._fd)

    def write(self, values: Mapping[str, Any]) -> None:
        wanted = replace(sockets.polling(self._fd), **values)
        sockets.set_polling(self._fd, wanted, self._change.budget if wanted.prefer_busy_poll else 0)


class _SteeringTarget:
    """The kernel does not tell whether a group has a program: until it is told otherwise it is taken to have ours."""

    def __init__(self, change: SteeringChange, fd: int):
        self._change, self._fd, self._now = change, fd, change.after

    def read(self) -> Value | None:
        return self._now

    def write(self, values: Mapping[str, Any]) -> None:
        self._now = Steered(**values)
        if self._now.steered_by_queue:
            sockets.steer_by_queue(self._fd, len(self._change.inodes))
            return
        with suppress(FileNotFoundError):  # it has none any more
            sockets.stop_steering(self._fd)


@contextmanager
def _socket(change: SocketChange | SteeringChange) -> Iterator[SettingsBlock | None]:
    with ExitStack() as stack:
        inodes = change.inodes if isinstance(change, SteeringChange) else (change.inode,)
        copy = _copy_of_socket(stack, change.pid, change.fd, inodes)
        if copy is None and isinstance(change, SteeringChange):  # its holder has gone; the group may live on
            places = (place for each in processes.holders_of_sockets(inodes).values() for place in each)
            copies = (_copy_of_socket(stack, pid, fd, inodes) for pid, fd in places)
            copy = next((each for each in copies if each is not None), None)
        if copy is None:
            yield None
        elif isinstance(change, SteeringChange):
            yield _SteeringTarget(change, copy)
        else:
            yield _SocketTarget(change, copy)


def _copy_of_socket(stack: ExitStack, pid: int, fd: int, inodes: Collection[int]) -> int | None:
    """None if the process has gone, or if the descriptor is none of these sockets any more."""
    try:
        handle = stack.enter_context(processes.Handle(pid))
        return stack.enter_context(copy_of_socket(handle, fd, inodes))
    except OSError as error:
        if error.errno not in GONE:
            raise
        return None


class _NapiTarget:
    def __init__(self, change: NapiChange, netdev: Netdev):
        self._change, self._netdev = change, netdev

    def read(self) -> Value | None:
        napi = self._netdev.napi(self._change.napi_id)
        return napi.settings if napi else None

    def write(self, values: Mapping[str, Any]) -> None:
        self._netdev.set_napi(self._change.napi_id, NapiSettings(**values))


@contextmanager
def _napi(change: NapiChange, places: Places) -> Iterator[SettingsBlock | None]:
    for netns in places.candidates(change.netns):
        with Netdev(netns) as netdev:
            target = _NapiTarget(change, netdev)
            if target.read() is not None:
                yield target
                return
    _refuse_away(change, places)
    yield None


@contextmanager
def _thread(change: ThreadChange, places: Places) -> Iterator[SettingsBlock | None]:
    with ExitStack() as stack:
        found = (stack.enter_context(thread_block(change, netns)) for netns in places.candidates(change.netns))
        block = next((each for each in found if each is not None), None)
        if block is None:
            _refuse_away(change, places)
        yield block


def _refuse_away(change: InstanceChange, places: Places) -> None:
    """Raises Away if the device is there but down: its instances are hidden then, and drivers with persistent
    NAPI configuration bring the settings back when it comes up."""
    home = places.candidates(change.netns)[0]
    own = _link(home, change.ifindex)
    if own is not None and home.inode == change.netns and not own.up and own.name == change.device:
        raise Away(f"{change.where}: {change.device} is down, and its settings may come back with it")


class _CoalescingTarget:
    def __init__(self, ethtool: Ethtool, ifindex: int):
        self._ethtool, self._ifindex = ethtool, ifindex

    def read(self) -> Value | None:
        return self._ethtool.coalescing(self._ifindex)

    def write(self, values: Mapping[str, Any]) -> None:
        self._ethtool.set_coalescing(self._ifindex, Coalescing(**values))


class _QueueTarget:
    def __init__(self, ethtool: Ethtool, ioctl: EthtoolIoctl, link: Link, queue: int):
        self._ethtool, self._ioctl, self._link, self._queue = ethtool, ioctl, link, queue

    def read(self) -> Coalescing | None:
        wide = self._ethtool.coalescing(self._link.ifindex)
        return self._ioctl.queue_coalescing(self._link.name, self._queue, wide) if wide else None

    def write(self, values: Mapping[str, Any]) -> None:
        present = self.read() or Coalescing()
        self._ioctl.set_queue_coalescing(self._link.name, self._queue, Coalescing(**values), present)


class _RingsTarget:
    def __init__(self, ethtool: Ethtool, ifindex: int):
        self._ethtool, self._ifindex = ethtool, ifindex

    def read(self) -> Value | None:
        rings = self._ethtool.rings(self._ifindex)
        return RingSizes(rx=rings.rx, tx=rings.tx) if rings else None

    def write(self, values: Mapping[str, Any]) -> None:
        self._ethtool.set_rings(self._ifindex, RingSizes(**values))


class _ChannelsTarget:
    def __init__(self, ethtool: Ethtool, ifindex: int):
        self._ethtool, self._ifindex = ethtool, ifindex

    def read(self) -> Value | None:
        found = self._ethtool.channels(self._ifindex)
        return ChannelCounts(rx=found.rx, tx=found.tx, combined=found.combined) if found else None

    def write(self, values: Mapping[str, Any]) -> None:
        self._ethtool.set_channels(self._ifindex, ChannelCounts(**values))


@contextmanager
def _device(change: DeviceChange, places: Places) -> Iterator[SettingsBlock | None]:
    """An interface index is never given twice in a namespace, so that a device which was removed and made anew, with
    its driver's defaults, is another one (dev_index_reserve() in net/core/dev.c)."""
    for netns in places.candidates(change.netns, change.netns_cookie):
        link = _link(netns, change.ifindex)
        if link is None:
            continue
        at_home = netns.inode == change.netns and change.netns_cookie in (0, netns.cookie)
        with Ethtool(netns) as ethtool, EthtoolIoctl(netns) as ioctl:
            if not at_home and not _came_back(change, link, ioctl):
                continue
            if isinstance(change, RingsChange):
                yield _RingsTarget(ethtool, link.ifindex)
            elif isinstance(change, ChannelsChange):
                yield _ChannelsTarget(ethtool, link.ifindex)
            elif change.queue is not None:
                yield _QueueTarget(ethtool, ioctl, link, change.queue)
            else:
                yield _CoalescingTarget(ethtool, link.ifindex)
        return
    yield None


def _came_back(change: DeviceChange, link: Link, ioctl: EthtoolIoctl) -> bool:
    """Whether it is the NIC that was in another namespace, and not a namesake: virtual devices end with theirs."""
    bus = _bus(ioctl, link)
    return link.name == change.device and not link.virtual and bus is not None and bus == change.bus


def _bus(ioctl: EthtoolIoctl, link: Link) -> str | None:
    driver = ioctl.driver(link.name)
    return driver[1] if driver else None


def recognisable(transaction: Transaction, places: Places) -> Transaction:
    """With all by which its devices are known again: names, interface indexes and inode numbers are given anew."""
    return replace(transaction, changes=tuple(_recognisable(change, places) for change in transaction.changes))


def _recognisable(change: Change, places: Places) -> Change:
    if not isinstance(change, DeviceChange):
        return change
    netns = places.candidates(change.netns)[0]
    link = _link(netns, change.ifindex)
    if link is None:
        return change
    with EthtoolIoctl(netns) as ioctl:
        return replace(change, netns_cookie=netns.cookie, bus=_bus(ioctl, link))


def _link(netns: NetworkNamespace, ifindex: int) -> Link | None:
    return next((link for link in links(netns) if link.ifindex == ifindex), None)
