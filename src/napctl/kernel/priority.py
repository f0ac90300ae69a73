"""The scheduler's priority of the calling thread (setpriority(2))."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from napctl.kernel import capabilities

__all__ = ["in_background"]


LOWEST = 19


@contextmanager
def in_background() -> Iterator[None]:
    """Run at nice 19 meanwhile, where we are allowed to come back: CAP_SYS_NICE or RLIMIT_NICE (can_nice() in
    kernel/sched/syscalls.c)."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    allowed = resource.getrlimit(resource.RLIMIT_NICE)[0]
    if "CAP_SYS_NICE" not in capabilities.held() and 20 - before > allowed:
        yield
        return
    os.setpriority(os.PRIO_PROCESS, 0, LOWEST)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
