"""What a process has open, as far as it bears on how packets are waited for: one pass over /proc/PID/fd (proc(5))."""

import ctypes
import errno
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from platform import machine

from napctl.kernel.processes import PROC, SOCKET_LINK

__all__ = [
    "EPOLL",
    "RING",
    "SOCKET",
    "OpenFiles",
    "Place",
    "distinct",
    "has_network_socket",
    "inode_of",
    "open_files",
    "order_of_files",
    "watched",
    "watches",
]


EPOLL, SOCKET = "anon_inode:[eventpoll]", SOCKET_LINK
RING, PROGRAM = "anon_inode:[io_uring]", "anon_inode:bpf-prog"
LOCAL_PROTOCOLS = ("UNIX", "NETLINK", "ALG", "AF_VSOCK")
"""How the names of protocols begin over which no packet of a network comes (sk_prot_creator->name)."""
KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}.get(machine())
KCMP_FILE, KCMP_EPOLL_TFD = 0, 7
WATCHED = re.compile(rb"^tfd: *(\d+) .* ino:([0-9a-f]+)", re.M)
"""A line of an epoll instance's fdinfo."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class OpenFiles:
    """Descriptors of one process, by what they are."""

    epolls: list[int] = field(default_factory=list)
    rings: list[int] = field(default_factory=list)
    """io_uring instances."""
    programs: list[int] = field(default_factory=list)
    """BPF programs."""
    sockets: dict[int, int] = field(default_factory=dict)
    """Inode number of the socket by descriptor; a socket may have several."""

    @cached_property
    def by_inode(self) -> dict[int, int]:
        """One of the descriptors of each socket, by its inode number."""
        return {inode: fd for fd, inode in self.sockets.items()}


def open_files(pid: int) -> OpenFiles:
    """What it has open now.

    Raises PermissionError without ptrace-read rights, FileNotFoundError or ProcessLookupError if it is gone.
    """
    found = OpenFiles()
    directory = os.open(PROC / str(pid) / "fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in os.listdir(directory):  # noqa: PTH208 - 10,000 of them
            try:
                link = os.readlink(name, dir_fd=directory)
            except FileNotFoundError:
                continue  # closed meanwhile
            if link.startswith(SOCKET):
                found.sockets[int(name)] = int(link[len(SOCKET) : -1])
            elif link == EPOLL:
                found.epolls.append(int(name))
            elif link == RING:
                found.rings.append(int(name))
            elif link == PROGRAM:
                found.programs.append(int(name))
    finally:
        os.close(directory)
    for descriptors in (found.epolls, found.rings, found.programs):
        descriptors.sort()
    return found


def has_network_socket(pid: int) -> bool:
    """Whether packets of a network may come to it by a socket. Raises as open_files().

    The name of a socket's protocol is an attribute of the file (sockfs_xattr_get() in net/socket.c).
    """
    for fd in open_files(pid).sockets:
        with suppress(FileNotFoundError, ProcessLookupError):  # closed meanwhile
            name = os.getxattr(PROC / str(pid) / "fd" / str(fd), "system.sockprotoname").decode(errors="replace")
            if not name.startswith(LOCAL_PROTOCOLS):
                return True
    return False


def watched(pid: int, epoll_fd: int) -> tuple[tuple[int, int], ...]:
    """Descriptors that an epoll instance watches, as the process numbered them that added them, and the inode number of
    what they were (ep_show_fdinfo() in fs/eventpoll.c). Of one that several processes hold, a number may stand several
    times.

    The kernel holds the instance's lock while it writes the list: about 0.3 µs for each descriptor. Raises as
    open_files().
    """
    text = (PROC / str(pid) / "fdinfo" / str(epoll_fd)).read_bytes()
    return tuple((int(fd), int(inode, 16)) for fd, inode in WATCHED.findall(text))


def inode_of(pid: int, fd: int) -> int | None:
    """Inode number of what a descriptor is; None if it is closed. That of all epoll instances, timers and the like is
    one and the same (fs/anon_inodes.c)."""
    try:
        return (PROC / str(pid) / "fd" / str(fd)).stat().st_ino
    except OSError:
        return None


Place = tuple[int, int]
"""Process and descriptor."""


def order_of_files(one: Place, other: Place) -> int | None:
    """0 if two descriptors are the same open file, as after a fork; else -1 or 1, the same while both are open.

    kcmp(2), KCMP_FILE. None where the kernel does not tell: it was built without it, one of them has gone, or we may
    not look.
    """
    if one == other:
        return 0
    if KCMP is None:
        return None
    (pid, fd), (other_pid, other_fd) = one, other
    result = _libc.syscall(KCMP, pid, other_pid, KCMP_FILE, ctypes.c_ulong(fd), ctypes.c_ulong(other_fd))
    return {0: 0, 1: -1, 2: 1}.get(result)


class _EpollSlot(ctypes.Structure):
    """struct kcmp_epoll_slot of include/uapi/linux/kcmp.h."""

    _fields_ = (("efd", ctypes.c_uint32), ("tfd", ctypes.c_uint32), ("toff", ctypes.c_uint32))


def watches(pid: int, epoll_fd: int, number: int, fd: int) -> bool:
    """Whether what an epoll instance watches under that number is the open file `fd` of the same process.

    kcmp(2), KCMP_EPOLL_TFD (Linux 4.13). Where the kernel does not tell, the number has to do.
    """
    result, nth = 1, 0
    while result > 0:  # another one, of several that were added under that number
        slot = _EpollSlot(epoll_fd, number, nth)
        result = -1 if KCMP is None else _libc.syscall(KCMP, pid, pid, KCMP_EPOLL_TFD, fd, ctypes.byref(slot))
        nth += 1
    gone = KCMP is not None and ctypes.get_errno() in (errno.ENOENT, errno.EBADF, errno.ESRCH)
    return result == 0 or (number == fd and not gone)


def distinct(
    places: Sequence[Place], order: Callable[[Place, Place], int | None] = order_of_files
) -> list[list[Place]]:
    """(process, descriptor) pairs that may be alike, grouped by the open file that they are.

    A thousand workers take ten comparisons each. One that cannot be compared is taken for another file.
    """
    ordered: list[list[Place]] = []
    uncertain: list[list[Place]] = []  # not comparable with one of those, which may have gone
    for place in places:
        group, at = _search(ordered, place, order)
        if at is None:
            group = next((each for each in ordered + uncertain if order(each[0], place) == 0), None)
        if group is not None:
            group.append(place)
        elif at is None:
            uncertain.append([place])
        else:
            ordered.insert(at, [place])
    first = {place: number for number, place in enumerate(places)}
    return sorted(ordered + uncertain, key=lambda group: first[group[0]])


def _search(
    ordered: list[list[Place]], place: Place, order: Callable[[Place, Place], int | None]
) -> tuple[list[Place] | None, int | None]:
    """The group of a place, or where a new one belongs; neither, if one on the way cannot be compared with it."""
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        found = order(ordered[middle][0], place)
        if found is None:
            return None, None
        if found == 0:
            return ordered[middle], middle
        low, high = (middle + 1, high) if found < 0 else (low, middle)
    return None, low
