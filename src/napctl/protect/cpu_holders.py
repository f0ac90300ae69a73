"""Threads that want a CPU all the time, and have it: what threads at nice 19 would wait for."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from napctl.kernel import processes
from napctl.kernel.machine_stat import TICKS_PER_SECOND
from napctl.kernel.open_files import has_network_socket
from napctl.kernel.schedstat import turns
from napctl.kernel.sleeps import sleeps
from napctl.model.limits import MOST_NICE
from napctl.protect.starved import HELD_SHARE, CpuHolder

__all__ = ["CpuHolders"]


LEAST_SECONDS = 0.2
"""Between two looks at all processes."""
COST_SHARE = 0.02
"""Of a CPU, that looks may take once the first question is answered."""
STALE_SECONDS = 5.0
"""A look that another could have followed so long ago is none."""
FIRST_LOOKS = 3
"""The first tells who is busy by the second, the second which of their threads never slept by the third."""


@dataclass(frozen=True)
class _Running:
    """A thread that ran, or wanted to, at the moment of the look."""

    pid: int
    ran_ns: int
    slept: int


class CpuHolders:
    """From look to look. Threads of the kernel are none, nor is what cannot be seen, in other PID namespaces."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at, self._next_at, self._looks = float("-inf"), float("-inf"), 0
        self._ticks: dict[int, int] = {}
        self._running: dict[int, _Running] = {}
        """By thread id."""
        self._found: tuple[CpuHolder, ...] = ()

    def read(self) -> tuple[CpuHolder, ...]:
        """Those of the time since the last look; none before the third look of a row."""
        now = self._clock()
        if now - max(self._at, self._next_at) > STALE_SECONDS:
            self._looks, self._ticks, self._running, self._found = 0, {}, {}, ()
        elif now < self._next_at:
            return self._found
        self._look(now - self._at)
        self._looks += 1
        self._at = now
        took = self._clock() - now
        self._next_at = now + max(LEAST_SECONDS, took / COST_SHARE if self._looks >= FIRST_LOOKS else 0.0)
        return self._found

    def _look(self, seconds: float) -> None:
        seen = processes.look_at_all()
        before, self._ticks = self._ticks, {
            pid: each.run_ticks for pid, each in seen.items() if not each.is_kernel_thread
        }  # fmt: skip
        least = HELD_SHARE * seconds * TICKS_PER_SECOND - 1 if before else 0
        busy = [pid for pid, ticks in self._ticks.items() if pid in before and ticks - before[pid] >= least]
        former, self._running = self._running, {tid: each for pid in busy for tid, each in _running(pid)}
        self._found = tuple(
            holder
            for tid in self._running.keys() & former.keys()
            if (holder := _holder(tid, seen[self._running[tid].pid], former[tid], self._running[tid], seconds))
        )


def _running(pid: int) -> Iterator[tuple[int, _Running]]:
    with suppress(OSError):
        for tid in processes.threads(pid):
            seen, times, slept = processes.look(tid), turns(tid), sleeps(tid)
            if seen is not None and seen.state == "R" and times is not None and slept is not None:
                yield tid, _Running(pid, times.ran_ns, slept.times)


def _holder(tid: int, seen: processes.Seen, before: _Running, now: _Running, seconds: float) -> CpuHolder | None:
    ran = (now.ran_ns - before.ran_ns) / 1e9 / seconds
    if now.slept != before.slept or ran < HELD_SHARE or now.pid != before.pid:
        return None
    cpu = processes.last_cpu(tid, tid)
    try:
        nice = _nice(tid)
    except OSError:
        return None
    if cpu is None:
        return None
    return CpuHolder(
        pid=now.pid,
        name=seen.process.name,
        cpu=cpu,
        nice=nice,
        ran=min(1.0, ran),
        has_sockets=_may_read_packets(now.pid),
    )


def _nice(tid: int) -> int:
    """How nice a thread is; one of SCHED_IDLE comes after the nicest, whatever its own value (sched(7)): it has 3 parts
    where those have 15 (WEIGHT_IDLEPRIO in kernel/sched/sched.h)."""
    if os.sched_getscheduler(tid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_IDLE:
        return MOST_NICE + 1
    return os.getpriority(os.PRIO_PROCESS, tid)


def _may_read_packets(pid: int) -> bool:
    """In doubt they are for it."""
    try:
        return has_network_socket(pid)
    except OSError:
        return True
