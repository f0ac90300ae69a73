"""Processes: who they are, which epoll instances and sockets they hold, and what those watch (proc(5))."""

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from napctl.kernel.small_files import read_small
from napctl.kernel.syscalls import pidfd_getfd

__all__ = [
    "PROC",
    "SOCKET_LINK",
    "Handle",
    "Process",
    "Seen",
    "has_name",
    "holders_of_sockets",
    "last_cpu",
    "look",
    "look_at_all",
    "named",
    "newest_pid",
    "parent",
    "pids",
    "process",
    "process_of_thread",
    "processes",
    "threads",
]


PROC = Path("/proc")
SOCKET_LINK = "socket:["
PF_KTHREAD = 0x00200000
"""Flag of a kernel thread: include/linux/sched.h."""


@dataclass(frozen=True)
class Process:
    """One process. `started_ticks` (clock ticks after boot) tells it from a later one with the same pid."""

    pid: int
    name: str
    started_ticks: int


@dataclass(frozen=True)
class Seen:
    """What one reading of /proc/PID/stat says, also of a process that has ended and still waits for its parent."""

    process: Process
    state: str
    """One letter, as `ps` prints it: "Z" for a zombie."""
    parent: int
    """Pid of its parent; 0 if it has none, or none in this PID namespace."""
    is_kernel_thread: bool
    threads: int
    run_ticks: int
    """CPU time of all its threads since its start, in steps of the tick (machine_stat.TICKS_PER_SECOND)."""

    @property
    def ended(self) -> bool:
        """Whether it (or at least its first thread, with which /proc/PID/fd goes) has ended."""
        return self.state in "ZX"


def look(pid: int) -> Seen | None:
    """One process or thread, zombies included; None if there is none."""
    try:
        text = read_small(f"{PROC}/{pid}/stat").decode(errors="backslashreplace")  # a name may be any bytes
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]  # the name may hold blanks and parentheses
    fields = text[text.rindex(")") + 2 :].split()  # from field 3 of proc_pid_stat(5) on
    return Seen(
        process=Process(pid=pid, name=name, started_ticks=int(fields[19])),
        state=fields[0],
        parent=int(fields[1]),
        is_kernel_thread=bool(int(fields[6]) & PF_KTHREAD),
        threads=int(fields[17]),
        run_ticks=int(fields[11]) + int(fields[12]),
    )


def look_at_all() -> dict[int, Seen]:
    """All processes of this PID namespace by pid, zombies and kernel threads included, from one pass over /proc."""
    return {pid: found for pid in pids() if (found := look(pid)) is not None}


def process(pid: int) -> Process | None:
    """The process with that pid; None if there is none (a zombie is none)."""
    found = look(pid)
    return None if found is None or found.ended else found.process


def parent(pid: int) -> int | None:
    """Pid of its parent, 0 if that is outside of this PID namespace; None if the process has vanished."""
    found = look(pid)
    return None if found is None else found.parent


def pids() -> list[int]:
    """Ids of all processes of this PID namespace, in order."""
    return sorted([int(entry) for entry in os.listdir(PROC) if entry.isdigit()])  # noqa: PTH208 - ten times faster


def newest_pid() -> int | None:
    """The id that this PID namespace has given out last, to a process or thread: cheaper than pids() by far. None where
    /proc shows another one.

    Who came under an id that he chose (set_tid of clone3(2), as CRIU does) is not seen by it.
    """
    return int(read_small("/proc/loadavg").split()[4]) if _is_proc_ours() else None


@cache
def _is_proc_ours() -> bool:
    return os.readlink("/proc/self") == str(os.getpid())  # noqa: PTH115


def processes() -> Iterator[Process]:
    """All processes of this PID namespace, by pid."""
    for pid in pids():
        found = process(pid)
        if found is not None:
            yield found


def named(name: str) -> list[Process]:
    """Processes with that name: as `ps -C` has it (15 characters), or the file name of the program that runs."""
    return [found for found in processes() if has_name(found, name)]


def has_name(process: Process, name: str) -> bool:
    """Whether that is its name, in either sense of named()."""
    # Of a kernel thread stat has the name at full length: proc_task_name() in fs/proc/array.c.
    return process.name in (name, name[:15]) or _program(process.pid) == name


def _program(pid: int) -> str | None:
    try:
        return (PROC / str(pid) / "exe").readlink().name.removesuffix(" (deleted)")
    except OSError:  # a kernel thread, gone, or not ours to read
        return None


def process_of_thread(tid: int) -> int | None:
    """The process to which a thread belongs (its own id for the first thread); None if there is none."""
    try:
        status = (PROC / str(tid) / "status").read_text(errors="backslashreplace")  # a name may be any bytes
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(status.split("\nTgid:", 1)[1].split(maxsplit=1)[0])


def threads(pid: int) -> list[int]:
    """Thread ids. Raises OSError if the process is gone."""
    return sorted(int(entry.name) for entry in (PROC / str(pid) / "task").iterdir())


def holders_of_sockets(inodes: Collection[int]) -> dict[int, list[tuple[int, int]]]:
    """Who holds these sockets: {socket inode: [(pid, fd), …]}, from one pass over /proc/*/fd.

    Sockets that nobody holds are not in it. Processes into which we may not look are passed over.
    """
    wanted = {f"{SOCKET_LINK}{inode}]": inode for inode in inodes}
    found: dict[int, list[tuple[int, int]]] = {}
    for pid in pids() if wanted else ():
        path = f"{PROC}/{pid}/fd"
        try:
            fds = os.listdir(path)  # noqa: PTH208 - thousands of processes
        except OSError:  # gone meanwhile, or not ours to read
            continue
        for fd in fds:
            try:
                inode = wanted.get(os.readlink(f"{path}/{fd}"))  # noqa: PTH115 - many thousands
            except OSError:  # closed meanwhile
                continue
            if inode is not None:
                found.setdefault(inode, []).append((pid, int(fd)))
    return {inode: sorted(holders) for inode, holders in found.items()}


def last_cpu(pid: int, tid: int) -> int | None:
    """The CPU on which a thread runs or ran last (field 39 of its stat file); None if it is gone."""
    try:
        text = read_small(f"{PROC}/{pid}/task/{tid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text[text.rindex(b")") + 2 :].split()[36])


class Handle:
    """A hold on a live process (pidfd): its pid cannot come to mean another. Use as a context manager.

    Raises OSError: ESRCH if it is gone.
    """

    def __init__(self, pid: int):
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    @classmethod
    def of(cls, found: Process) -> Self:
        """A hold on that process, and on no later one with its pid."""
        handle = cls(found.pid)
        now = process(found.pid)
        if now is None or now.started_ticks != found.started_ticks:
            os.close(handle._pidfd)
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return handle

    def __enter__(self) -> Self:
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
