"""Epoll instances of a process and the sockets that they watch: the one way in which we copy others' descriptors.

Nothing but epoll instances, sockets and io_uring instances is copied. Closing a copy calls the flush operation of the
file behind it (filp_flush() in fs/open.c): of a file on FUSE or NFS its server has to answer that, and may take its
time.
"""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from napctl.kernel import epoll, open_files
from napctl.kernel.open_files import OpenFiles
from napctl.kernel.processes import PROC, Handle
from napctl.model.settings import EpollParams

__all__ = [
    "FEWEST",
    "MOST_OF_PROCESS",
    "SAMPLE",
    "EpollSockets",
    "ask_sockets",
    "copy_of_epoll",
    "copy_of_ring",
    "copy_of_socket",
    "epoll_instances",
    "nested",
    "params_at",
    "sample",
    "spread",
]


SAMPLE = 200
"""Sockets that tell which NAPI instances feed a process, where a few may speak for all: each costs some 10 µs."""
MOST_OF_PROCESS, FEWEST = 2_000, 20
"""Sockets that are asked of all its instances together, where a few may speak for all; and of each of them."""
Told = TypeVar("Told")


@dataclass(frozen=True)
class EpollSockets(Generic[Told]):
    """One epoll instance and the sockets that it watches."""

    fd: int
    params: EpollParams
    watched: tuple[tuple[int, int], ...]
    """Number and inode number of all that it watches: as open_files.watched()."""
    sockets: Mapping[int, int]
    """Inode number of the sockets among them, by the number that they have now."""
    told: Mapping[int, Told]
    """What was told of each socket, or of a sample of them, by the same number."""


def epoll_instances(
    handle: Handle,
    files: OpenFiles,
    ask: Callable[[int], Told],
    *,
    most_sockets: int | None = None,
    always: Collection[int] = (),
    wanted: Callable[[EpollParams], bool] = lambda _params: True,
) -> Iterator[EpollSockets[Told]]:
    """The epoll instances among a process's files, with what `ask` tells of a copy of each socket that they watch.

    `most_sockets`: ask so many of an instance, spread over all it watches (None: all), and fewer where there are many
    instances, beside those whose inode number is in `always`. `wanted`: look only into instances with such parameters.
    One that is closed meanwhile is left out.

    Raises OSError: EPERM without ptrace-attach rights, ESRCH if the process is gone, ENOTTY before Linux 6.9.
    """
    if most_sockets is not None and files.epolls:
        most_sockets = min(most_sockets, max(FEWEST, MOST_OF_PROCESS // len(files.epolls)))
    for fd in files.epolls:
        try:
            with handle.copy_of(fd) as copy:
                params = epoll.params(copy)
            if not wanted(params):
                continue
            watched = open_files.watched(handle.pid, fd)
        except OSError as error:
            gone = error.errno in (errno.EBADF, errno.ENOENT)
            if gone or (error.errno == errno.ENOTTY and not _is_epoll(handle.pid, fd)):  # by now something else
                continue
            raise
        sockets = dict(_sockets(files, watched))
        asked = sample(sockets, most_sockets, always)
        yield EpollSockets(fd, params, watched, sockets, dict(ask_sockets(handle, asked, ask)))


def ask_sockets(handle: Handle, fds: Iterable[int], ask: Callable[[int], Told]) -> Iterator[tuple[int, Told]]:
    """What `ask` tells of a copy of each of these sockets, by descriptor. One that is closed meanwhile is left out."""
    for fd in fds:
        try:
            with handle.copy_of(fd) as copy:
                told = ask(copy)
        except OSError as error:
            if error.errno in (errno.ENOTSOCK, errno.EBADF):
                continue
            raise
        yield fd, told


@contextmanager
def copy_of_epoll(handle: Handle, fd: int) -> Iterator[int]:
    """A copy of an epoll instance that was seen under that number. Raises OSError: EBADF if it is something else by
    now, ENOENT or ESRCH if it is closed or the process has gone."""
    with _copy_of_one(handle, fd, {open_files.EPOLL}) as copy:
        yield copy


@contextmanager
def copy_of_socket(handle: Handle, fd: int, inodes: Iterable[int]) -> Iterator[int]:
    """A copy of a socket with one of these inode numbers that was seen under that number. Raises as copy_of_epoll()."""
    with _copy_of_one(handle, fd, {f"{open_files.SOCKET}{inode}]" for inode in inodes}) as copy:
        yield copy


@contextmanager
def copy_of_ring(handle: Handle, fd: int, inode: int) -> Iterator[int]:
    """A copy of an io_uring instance, by the inode number that it has alone (anon_inode_create_getfile() in
    fs/anon_inodes.c). Raises as copy_of_epoll()."""
    with _copy_of_one(handle, fd, {open_files.RING}) as copy:
        if os.fstat(copy).st_ino != inode:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        yield copy


@contextmanager
def _copy_of_one(handle: Handle, fd: int, links: Collection[str]) -> Iterator[int]:
    if _link(handle.pid, fd) not in links:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    with handle.copy_of(fd) as copy:
        yield copy


def sample(sockets: Mapping[int, int], most: int | None, always: Collection[int] = ()) -> list[int]:
    """Descriptors of at most so many of these sockets, evenly spread, and of those whose inode number is in `always`.

    `sockets`: inode numbers by descriptor.
    """
    if most is None or len(sockets) <= most:
        return list(sockets)
    picked = [fd for fd, inode in sockets.items() if inode in always]
    others = [fd for fd, inode in sockets.items() if inode not in always]
    return picked + spread(others, most)


def spread(fds: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly spread."""
    return list(fds) if len(fds) <= most else [fds[index * len(fds) // most] for index in range(most)]


def nested(pid: int, instances: Sequence[EpollSockets[Told]]) -> dict[int, int]:
    """Which of a process's instances another one watches: descriptor of the other by their own."""
    found: dict[int, int] = {}
    fds = {each.fd for each in instances}
    anonymous = open_files.inode_of(pid, instances[0].fd) if len(instances) > 1 else None
    for outer in instances if anonymous is not None else ():
        for number in (number for number, inode in outer.watched if inode == anonymous):
            if number not in fds and open_files.watches(pid, outer.fd, number, number):
                continue  # an eventfd, say, of which each of many instances may watch one
            for each in instances:
                if each is not outer and open_files.watches(pid, outer.fd, number, each.fd):
                    found[each.fd] = outer.fd
    return found


def params_at(handle: Handle, fd: int) -> EpollParams | None:
    """Parameters of a process's epoll instance; None if that descriptor is closed, or something else by now.

    Raises OSError: EPERM without ptrace-attach rights, ESRCH if the process is gone.
    """
    if not _is_epoll(handle.pid, fd):
        return None
    try:
        with handle.copy_of(fd) as copy:
            return epoll.params(copy)
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ENOTTY):
            return None
        raise


def _sockets(files: OpenFiles, watched: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Under their present number, if they were given another one: descriptor and inode number."""
    for fd, inode in watched:
        here = fd if files.sockets.get(fd) == inode else files.by_inode.get(inode)
        if here is not None:
            yield here, inode


def _is_epoll(pid: int, fd: int) -> bool:
    try:
        return _link(pid, fd) == open_files.EPOLL
    except OSError:
        return False


def _link(pid: int, fd: int) -> str:
    return os.readlink(PROC / str(pid) / "fd" / str(fd))  # noqa: PTH115 - as in openfiles
