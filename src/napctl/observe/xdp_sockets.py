"""Which AF_XDP sockets are bound to the queues of these devices, and who has them."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

from napctl.kernel import open_files, processes, sockets, xdp_diag
from napctl.kernel.epoll_instances import ask_sockets
from napctl.kernel.held_files import mapped_files, socket_inodes
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.netlink import Refused
from napctl.kernel.processes import Process
from napctl.kernel.xdp_diag import BoundSocket
from napctl.kernel.xdp_rings import is_zero_copy
from napctl.model.census import XdpSocket
from napctl.model.errors import Unsupported
from napctl.model.machine import Device, Queue
from napctl.probe.btf import kernel_names

__all__ = ["sockets_by_queues", "xdp_sockets"]


QUEUE_TELLS = "NETDEV_A_QUEUE_XSK"
"""How the kernel calls what it tells of a queue that has a socket, if it does."""
BY_QUEUE = "queue-get, and the ring that it has mapped"
Holder = tuple[Process, bool, bool | None]
"""Who has a socket, whether it prefers busy polling, and whether it is one of zero copy."""


def xdp_sockets(netns: NetworkNamespace, devices: Collection[Device]) -> tuple[XdpSocket, ...] | None:
    """By device and queue. None if there may be some, and this kernel has no way to tell."""
    used = sorted((device.name, queue.index) for device in devices for queue in device.queues if _is_used(queue))
    if not used and kernel_names(QUEUE_TELLS):
        return ()
    names = {device.ifindex: device.name for device in devices}
    bound = _bound(netns)
    if bound is None and not used:
        return None
    if bound is None:
        anybody = [holder for holders in _holders(netns).values() for holder in holders]
        return tuple(_of(name, queue, None, anybody) for name, queue in used)
    ours = sorted((each for each in bound if each.ifindex in names), key=lambda each: (each.ifindex, each.queue))
    holders = _holders(netns) if ours else {}
    return tuple(_of(names[each.ifindex], each.queue, each.zero_copy, holders.get(each.inode, ())) for each in ours)


def sockets_by_queues(netns: NetworkNamespace, process: Process) -> list[BoundSocket] | None:
    """Those of one process, where the kernel does not tell of sockets: by the queues of that network namespace that
    have one. None if these do not tell whose they are. Raises OSError."""
    try:
        with Netdev(netns) as netdev:
            used = sorted((queue.ifindex, queue.index) for queue in netdev.queues() if _is_used(queue))
    except Unsupported:
        return None
    if not used:
        return [] if kernel_names(QUEUE_TELLS) else None
    inodes = sorted(inode for inode, *_ in _sockets(process, netns.cookie))
    if inodes and len(inodes) != len(used):
        return None
    return [BoundSocket(inode, *place, None, BY_QUEUE) for inode, place in zip(inodes, used, strict=False)]


def _is_used(queue: Queue) -> bool:
    return queue.kind == "rx" and any(use.kind == "AF_XDP" for use in queue.uses)


def _bound(netns: NetworkNamespace) -> list[BoundSocket] | None:
    """None where this kernel does not tell, or not us."""
    try:
        return xdp_diag.bound_sockets(netns)
    except Refused:
        return None


def _holders(netns: NetworkNamespace) -> dict[int, list[Holder]]:
    """By inode number, the processes that have a socket of AF_XDP of that network namespace."""
    cookie = netns.cookie
    found: dict[int, list[Holder]] = {}
    for process in processes.processes():
        with suppress(OSError):  # gone meanwhile, or not ours to look into
            for inode, prefers, zero_copy in _sockets(process, cookie):
                found.setdefault(inode, []).append((process, prefers, zero_copy))
    return found


def _sockets(process: Process, cookie: int) -> Iterator[tuple[int, bool, bool | None]]:
    """Inode numbers of a process's sockets of AF_XDP of the namespace with that cookie, whether they prefer busy
    polling, and whether they are of zero copy: who uses one has mapped its rings. Raises OSError."""
    inodes = socket_inodes(mapped_files(process.pid))
    if not inodes:
        return
    places = open_files.open_files(process.pid).by_inode
    by_fd = {places[inode]: inode for inode in inodes & places.keys()}
    with processes.Handle.of(process) as handle:
        for fd, told in ask_sockets(handle, sorted(by_fd), _polling):
            if told is not None and told[0] == cookie:
                yield by_fd[fd], *told[1:]


def _polling(socket_fd: int) -> tuple[int, bool, bool | None] | None:
    """Of which network namespace it is, whether it prefers busy polling, and whether it is of zero copy; None if it is
    none of AF_XDP."""
    if not sockets.is_xdp(socket_fd):
        return None
    prefers = sockets.polling(socket_fd).prefer_busy_poll
    return sockets.netns_cookie(socket_fd), prefers, is_zero_copy(socket_fd)


def _of(device: str, queue: int, zero_copy: bool | None, holders: Sequence[Holder]) -> XdpSocket:
    """Where any of several may have it, it prefers what all of them do: nobody is blamed for another."""
    return XdpSocket(
        device=device,
        queue=queue,
        zero_copy=_alike([each for *_, each in holders]) if zero_copy is None else zero_copy,
        holders=tuple(dict.fromkeys((process.pid, process.name) for process, *_ in holders)),
        prefers_busy_poll=_alike([prefers for _, prefers, _ in holders]),
    )


def _alike(answers: Sequence[bool | None]) -> bool | None:
    """None: there are none, or different ones."""
    return answers[0] if len(set(answers)) == 1 else None
