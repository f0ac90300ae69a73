"""On which CPUs this process runs, and before whom: for one that has to run while packet work takes a CPU whole.

The class is that of the calling thread; it, and the CPUs, are inherited by what is started afterwards.
"""

import os
import resource
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["allowed_cpus", "away_from", "before_others"]


RR_PRIORITY = 1
"""The least of that class: before all that has none, which NAPI threads and ksoftirqd are among."""
MOST_AT_A_TIME_US = 200_000
"""Of a CPU without a sleep: then it is an ordinary process again (RLIMIT_RTTIME, setrlimit(2))."""
KILLED_AT_US = 2_000_000
"""What did not even hear that is killed; the guard restores then."""
NO_CLASS = os.sched_param(0)


def allowed_cpus() -> frozenset[int]:
    """Those that this process might have: of its control group, whatever its affinity is now."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))
        return frozenset(os.sched_getaffinity(0))
    except OSError:  # not allowed to ask for other CPUs
        return frozenset(before)
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


def away_from(busy: Collection[int]) -> frozenset[int]:
    """Run on other CPUs from now on, if there are any that this process may have; which. Empty: there are none, and
    nothing was changed."""
    free = allowed_cpus() - set(busy)
    if not free:
        return frozenset()
    try:
        os.sched_setaffinity(0, free)
    except OSError:  # a filter of system calls, or they went offline
        return frozenset()
    return free


@contextmanager
def before_others() -> Iterator[bool]:
    """Run before all ordinary processes meanwhile, in SCHED_RR with a bound; yields whether that is allowed
    (CAP_SYS_NICE or RLIMIT_RTPRIO, and no RestrictRealtime)."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    limits = resource.getrlimit(resource.RLIMIT_RTTIME)
    handler = signal.getsignal(signal.SIGXCPU)
    try:
        # What is started meanwhile is none of it.
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(RR_PRIORITY))
    except OSError:
        yield False
        return
    try:
        signal.signal(signal.SIGXCPU, _ordinary_again)
        hard = limits[1]
        most = KILLED_AT_US if hard == resource.RLIM_INFINITY else min(KILLED_AT_US, hard)
        resource.setrlimit(resource.RLIMIT_RTTIME, (min(MOST_AT_A_TIME_US, most), hard))
        yield True
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, policy & ~os.SCHED_RESET_ON_FORK, parameters)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_RTTIME, limits)
        signal.signal(signal.SIGXCPU, handler)


def _ordinary_again(_number: int, _frame: FrameType | None) -> None:
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, NO_CLASS)
