"""Counters of a thread: perf_event_open(2), include/uapi/linux/perf_event.h. Counted, not sampled; nothing is stopped.

A group is on the CPU's counters as a whole or not at all, so that ratios within it hold whatever else is counted
there. It counts from when it was opened, in the kernel as well: what polls by system calls works there.
"""

import ctypes
import errno
import os
import struct
from typing import NamedTuple

__all__ = [
    "HARDWARE",
    "CounterGroup",
    "GroupReading",
    "PerfEvent",
    "counted",
    "group_reading",
    "open_event",
    "why_refused",
]


NUMBERS = {"x86_64": 298, "aarch64": 241}
"""perf_event_open: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h."""
ATTR_SIZE = 64
"""PERF_ATTR_SIZE_VER0: all that counting needs."""
FLAG_FD_CLOEXEC = 8
TOTAL_TIME_ENABLED, TOTAL_TIME_RUNNING, GROUP = 1, 2, 8
"""PERF_FORMAT_…"""
WORD = 1 << 64
NOT_PERMITTED = "not permitted: it needs CAP_PERFMON, or for a process of one's own kernel.perf_event_paranoid below 2"
REASONS = {
    errno.ENOENT: "this machine has no such counters",
    errno.EOPNOTSUPP: "this machine has no such counters",
    errno.ENODEV: "this machine has no such counters",
    errno.EACCES: NOT_PERMITTED,
    errno.EPERM: NOT_PERMITTED,
    errno.ESRCH: "it ended meanwhile",
    errno.EMFILE: "too many files are open here",
    errno.ENFILE: "too many files are open here",
    errno.ENOSYS: "this kernel has no perf_event_open, or its number is not known here for this architecture",
}
_libc = ctypes.CDLL(None, use_errno=True)


class PerfEvent(NamedTuple):
    """One that is counted: perf_type_id, and its number in there."""

    kind: int
    config: int


HARDWARE = (PerfEvent(0, 0), PerfEvent(0, 1), PerfEvent(0, 4), PerfEvent(0, 5))
"""Cycles, instructions, branches, branches that were mispredicted: PERF_COUNT_HW_… of PERF_TYPE_HARDWARE."""


class GroupReading(NamedTuple):
    """A group at one moment; all since it was opened."""

    enabled_ns: int
    """That the thread ran."""
    running_ns: int
    """Of that, the time in which the group had the CPU's counters: less where others count as well."""
    counts: tuple[int, ...]
    """In the order of its events."""


class CounterGroup:
    """Events of one thread, on whatever CPU it runs. Raises OSError (in words: why_refused()) if one is refused."""

    def __init__(self, tid: int, events: tuple[PerfEvent, ...]):
        self._fds: list[int] = []
        form = GROUP | TOTAL_TIME_ENABLED | TOTAL_TIME_RUNNING
        try:
            for event in events:
                leader = self._fds[0] if self._fds else -1
                self._fds.append(open_event(event, tid, -1, leader=leader, read_format=form))
        except OSError:
            self.close()
            raise

    def read(self) -> GroupReading | None:
        """Now; None: it counts no more. Of a thread that has ended, its last."""
        try:
            return group_reading(os.read(self._fds[0], 8 * (3 + len(self._fds))))
        except OSError:
            return None

    def close(self) -> None:
        """Count no more."""
        while self._fds:
            os.close(self._fds.pop())


def open_event(event: PerfEvent, pid: int, cpu: int, *, leader: int = -1, read_format: int = 0) -> int:
    """A descriptor that counts from now on: of a thread (`cpu` -1), or of a CPU (`pid` -1). Raises OSError."""
    number = NUMBERS.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    attr = struct.pack("=IIQQQQ", event.kind, ATTR_SIZE, event.config, 0, 0, read_format).ljust(ATTR_SIZE, b"\0")
    fd: int = _libc.syscall(number, attr, pid, cpu, leader, ctypes.c_ulong(FLAG_FD_CLOEXEC))
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return fd


def why_refused(error: OSError) -> str:
    """In words: perf_event_open(2), ERRORS."""
    return REASONS.get(error.errno or 0, f"perf_event_open: {error.strerror}")


def group_reading(data: bytes) -> GroupReading | None:
    """What read(2) gave of a group; None where it gave nothing, as of an event in its error state (perf_read())."""
    if len(data) < 24 or len(data) % 8:
        return None
    many, enabled, running, *counts = struct.unpack(f"={len(data) // 8}Q", data)
    return GroupReading(enabled, running, tuple(counts)) if many == len(counts) else None


def counted(then: GroupReading, now: GroupReading) -> tuple[float, ...] | None:
    """In between, where the group had the counters for a part of the time as many as in all of it; None: it never had
    them, or what was read is not of one group, one after the other."""
    enabled, running = (now.enabled_ns - then.enabled_ns) % WORD, (now.running_ns - then.running_ns) % WORD
    if len(then.counts) != len(now.counts) or not 0 < running <= enabled < WORD // 2:
        return None
    grown = [(new - old) % WORD for old, new in zip(then.counts, now.counts, strict=True)]
    return tuple(each * enabled / running for each in grown) if max(grown, default=0) < WORD // 2 else None
