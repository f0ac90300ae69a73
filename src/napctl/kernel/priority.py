"""How the scheduler treats the calling thread (sched_setattr(2))."""

import ctypes
import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from napctl.kernel import capabilities

__all__ = ["in_background", "in_short_slices"]


_libc = ctypes.CDLL(None, use_errno=True)
SETATTR, GETATTR = {"x86_64": 314, "aarch64": 274}, {"x86_64": 315, "aarch64": 275}
"""Numbers of the system calls, by machine as uname(2) names it."""
SCHED_OTHER = 0
LOWEST = 19
SHORT_SLICE_NS = 100_000
"""The least that the kernel takes (__setparam_fair() in kernel/sched/syscalls.c)."""


class _Attr(ctypes.Structure):
    """struct sched_attr of include/uapi/linux/sched/types.h, in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


@contextmanager
def in_short_slices() -> Iterator[None]:
    """Run meanwhile in slices of 0.1 ms instead of milliseconds: whoever wakes up on this CPU waits no longer than that
    for us to make room.

    Where the kernel has it (Linux 6.12, commit 857b158dc5e8; an older one ignores it), for the policy SCHED_OTHER.
    """
    with _scheduled(slice_ns=SHORT_SLICE_NS):
        yield


@contextmanager
def in_background() -> Iterator[None]:
    """Run at nice 19 meanwhile, where we are allowed to come back: CAP_SYS_NICE or RLIMIT_NICE (can_nice() in
    kernel/sched/syscalls.c)."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    may = 20 - before <= resource.getrlimit(resource.RLIMIT_NICE)[0] or _has_sys_nice()
    with _scheduled(nice=LOWEST if may else None):
        yield


@cache
def _has_sys_nice() -> bool:
    """Read once: napctl gives none away, and reading it costs as much as a cheap check of a target."""
    return "CAP_SYS_NICE" in capabilities.held()


@contextmanager
def _scheduled(*, nice: int | None = None, slice_ns: int | None = None) -> Iterator[None]:
    before = _read()
    if before is None or before.policy != SCHED_OTHER:
        yield
        return
    _write(before.nice if nice is None else nice, before.runtime if slice_ns is None else slice_ns)
    try:
        yield
    finally:
        _write(before.nice, before.runtime)


def _read() -> _Attr | None:
    """None: not on this architecture."""
    number, attr = GETATTR.get(os.uname().machine), _Attr()
    if number is None:
        return None
    if _libc.syscall(number, 0, ctypes.byref(attr), ctypes.sizeof(attr), 0) < 0:
        _fail()
    return attr


def _write(nice: int, slice_ns: int) -> None:
    """A slice of 0 is the kernel's own. What a filter of system calls (seccomp(2)) forbids is done without."""
    attr = _Attr(size=ctypes.sizeof(_Attr), policy=SCHED_OTHER, nice=nice, runtime=slice_ns)
    if _libc.syscall(SETATTR[os.uname().machine], 0, ctypes.byref(attr), 0) < 0 and ctypes.get_errno() != errno.EPERM:
        _fail()


def _fail() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
