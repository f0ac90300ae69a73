"""On which CPUs this process runs, and before whom: for one that has to run while packet work takes a CPU whole.

The class is that of the calling thread; it, and the CPUs, are inherited by what is started afterwards.
"""

import os
import resource
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from types import FrameType
from typing import Self

__all__ = ["BeforeOthers", "allowed_cpus", "away_from", "chosen_cpus"]


RR_PRIORITY = 1
"""The least of that class: before all that has none, which NAPI threads and ksoftirqd are among."""
MOST_AT_A_TIME_US = 200_000
"""Of a CPU without a sleep: then it is an ordinary process (RLIMIT_RTTIME, setrlimit(2)), until again()."""
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


def chosen_cpus() -> frozenset[int] | None:
    """Those that somebody has chosen for this process (CPUAffinity=, taskset); None: all that it might have."""
    cpus = frozenset(os.sched_getaffinity(0))
    return None if cpus == allowed_cpus() else cpus


def away_from(busy: Collection[int], among: Collection[int] | None = None) -> frozenset[int]:
    """Run on other CPUs from now on, if there are any among these (None: that this process may have); which. Empty:
    there are none, and nothing was changed."""
    free = (allowed_cpus() if among is None else frozenset(among)) - set(busy)
    if not free:
        return frozenset()
    try:
        os.sched_setaffinity(0, free)
    except OSError:  # a filter of system calls, or they went offline
        return frozenset()
    return free


class BeforeOthers:
    """Runs before all ordinary processes meanwhile, in SCHED_RR with a bound. A context manager of the main thread."""

    def __init__(self) -> None:
        self._was = os.sched_getscheduler(0), os.sched_getparam(0)
        self._limits = resource.getrlimit(resource.RLIMIT_RTTIME)
        self._handler = signal.getsignal(signal.SIGXCPU)
        self._is_bounded = False
        self.is_ordinary = True
        """It is not allowed (CAP_SYS_NICE or RLIMIT_RTPRIO, and no RestrictRealtime); or it has run without a sleep for
        as long as it may, and is an ordinary process until again()."""
        self.allowed = self.again()

    def again(self) -> bool:
        """If it is an ordinary process: before all of them from now on; whether it is."""
        if not self.is_ordinary:
            return True
        try:
            # What is started meanwhile is none of it.
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(RR_PRIORITY))
        except OSError:
            return False
        time.sleep(0.001)  # what it ran before that sleep counts no more
        if not self._is_bounded:
            signal.signal(signal.SIGXCPU, self._ordinary_again)
            self._is_bounded = True
        hard = self._limits[1]
        most = KILLED_AT_US if hard == resource.RLIM_INFINITY else min(KILLED_AT_US, hard)
        resource.setrlimit(resource.RLIMIT_RTTIME, (min(MOST_AT_A_TIME_US, most), most))  # the kernel has raised it
        self.is_ordinary = False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._is_bounded:
            return
        policy, parameters = self._was
        with suppress(OSError):
            os.sched_setscheduler(0, policy & ~os.SCHED_RESET_ON_FORK, parameters)
        with suppress(OSError, ValueError):  # without CAP_SYS_RESOURCE the hard limit stays
            resource.setrlimit(resource.RLIMIT_RTTIME, self._limits)
        signal.signal(signal.SIGXCPU, self._handler)

    def _ordinary_again(self, _number: int, _frame: FrameType | None) -> None:
        self.is_ordinary = True
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, NO_CLASS)
