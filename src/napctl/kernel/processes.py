"""Processes: who they are, which epoll instances they hold, and what those watch (proc(5))."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from napctl.kernel import sockets
from napctl.kernel.syscalls import pidfd_getfd

PROC = Path("/proc")
EPOLL_LINK = "anon_inode:[eventpoll]"
SOCKET_LINK = "socket:["


@dataclass(frozen=True)
class Process:
    """One process. `started_ticks` (clock ticks after boot) tells it from a later one with the same pid."""

    pid: int
    name: str
    started_ticks: int


def process(pid: int) -> Process | None:
    """The process with that pid; None if there is none (a zombie is none)."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]  # the name may hold blanks and parentheses
    state, *rest = text[text.rindex(")") + 2 :].split()
    return None if state in "ZX" else Process(pid=pid, name=name, started_ticks=int(rest[18]))


def processes() -> Iterator[Process]:
    """All processes of this PID namespace, by pid."""
    for pid in sorted(int(entry) for entry in os.listdir(PROC) if entry.isdigit()):  # noqa: PTH208 - ten times faster
        found = process(pid)
        if found is not None:
            yield found


def named(name: str) -> list[Process]:
    """Processes with that name: as `ps -C` has it (15 characters), or the file name of the program that runs."""
    return [found for found in processes() if found.name == name[:15] or _program(found.pid) == name]


def _program(pid: int) -> str | None:
    try:
        return (PROC / str(pid) / "exe").readlink().name.removesuffix(" (deleted)")
    except OSError:  # a kernel thread, gone, or not ours to read
        return None


def process_of_thread(tid: int) -> int | None:
    """The process to which a thread belongs (its own id for the first thread); None if there is none."""
    try:
        status = (PROC / str(tid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(status.split("\nTgid:", 1)[1].split(maxsplit=1)[0])


def threads(pid: int) -> list[int]:
    """Thread ids. Raises OSError if the process is gone."""
    return sorted(int(entry.name) for entry in (PROC / str(pid) / "task").iterdir())


def epoll_fds(pid: int) -> list[int]:
    """Descriptors of the process's epoll instances.

    Raises PermissionError without ptrace-read rights, FileNotFoundError or ProcessLookupError if it is gone.
    """
    return _fds(pid, EPOLL_LINK)


def socket_fds(pid: int) -> list[int]:
    """Descriptors of the process's sockets, of any family. Raises as epoll_fds()."""
    return _fds(pid, SOCKET_LINK)


def _fds(pid: int, link: str) -> list[int]:
    """Descriptors whose link in /proc/PID/fd begins so."""
    found = []
    with os.scandir(PROC / str(pid) / "fd") as entries:
        for entry in entries:
            try:
                if os.readlink(entry.path).startswith(link):  # noqa: PTH115 - 10,000 times
                    found.append(int(entry.name))
            except FileNotFoundError:
                continue  # closed meanwhile
    return sorted(found)


def last_cpu(pid: int, tid: int) -> int | None:
    """The CPU on which a thread runs or ran last (field 39 of its stat file); None if it is gone."""
    try:
        text = (PROC / str(pid) / "task" / str(tid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text[text.rindex(")") + 2 :].split()[36])


def watched_fds(pid: int, epoll_fd: int) -> list[int]:
    """Descriptors that an epoll instance watches, as the process numbered them when it added them.

    The kernel holds the instance's lock while it writes the list: about 0.3 µs for each descriptor.
    """
    with (PROC / str(pid) / "fdinfo" / str(epoll_fd)).open() as lines:
        return [int(line.split(maxsplit=2)[1]) for line in lines if line.startswith("tfd:")]


class Handle:
    """A hold on a live process (pidfd): its pid cannot come to mean another. Use as a context manager.

    Raises OSError: ESRCH if it is gone.
    """

    def __init__(self, pid: int):
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._pidfd)

    @contextmanager
    def copy_of(self, fd: int) -> Iterator[int]:
        """Hold a copy of one of its descriptors. Raises OSError: EPERM, EBADF, ESRCH (pidfd_getfd(2))."""
        copy = pidfd_getfd(self._pidfd, fd)
        try:
            yield copy
        finally:
            os.close(copy)

    def incoming_napi_ids(self, fds: list[int]) -> dict[int, int]:
        """How many of these descriptors are sockets fed by which NAPI instance: {napi id: sockets}."""
        found: dict[int, int] = {}
        for fd in fds:
            try:
                with self.copy_of(fd) as copy:
                    napi_id = sockets.incoming_napi_id(copy)
            except OSError as error:
                if error.errno in (errno.ENOTSOCK, errno.EBADF):  # a pipe or timer; or closed meanwhile
                    continue
                raise
            if napi_id is not None:
                found[napi_id] = found.get(napi_id, 0) + 1
        return found
