"""Threads that never sleep: 100 % run time, no voluntary switch, and mostly one CPU that they may run on.

Measured with dpdk-testpmd and OVS: a poller that waits for nothing runs or stands in a run queue all the time
(/proc/PID/task/TID/schedstat: Documentation/scheduler/sched-stats.rst) and does not once sleep of its own accord
(voluntary_ctxt_switches: proc_pid_status(5)). The times of a thread that runs are those of its last tick.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from napctl.kernel.processes import PROC, last_cpu, threads
from napctl.kernel.schedstat import turns
from napctl.kernel.small_files import read_small
from napctl.model.cpus import parse_cpus

__all__ = ["Spin", "ThreadTimes", "busy_processes", "cpu_ticks", "spins", "thread_times"]


NEVER_SLEEPS = 0.9
"""Of the time, running or waiting for its CPU: a tick's worth of error in a window of 0.3 s is 3 %."""
MOST_SLEEPS_PER_SECOND = 2
"""A poller's timers, logs and the like."""
LEAST_TICKS = 1
"""Of CPU time in a moment, from which a process is worth a closer look: what spins may get little of a busy CPU."""
FIELDS = re.compile(rb"^(Name|State|Cpus_allowed_list|voluntary_ctxt_switches):[ \t]*([^\n]*)", re.M)


@dataclass(frozen=True)
class ThreadTimes:
    """One thread at one moment; times since its start."""

    tid: int
    name: str
    ran_ns: int
    waited_ns: int
    """Ready to run, in a run queue."""
    sleeps: int
    """That it went to sleep of its own accord."""
    cpus: str
    """On which it may run, as a kernel list."""
    ready: bool = False
    """It ran, or stood in a run queue, at that moment."""


@dataclass(frozen=True)
class Spin:
    """A thread that did not sleep during a window."""

    tid: int
    name: str
    cpu: int | None
    pinned: bool
    """It may run on that CPU alone."""
    run_share: float


def cpu_ticks(pids: Iterable[int]) -> dict[int, int]:
    """CPU time of these processes since their start, in clock ticks; those that have ended are missing."""
    found = {}
    for pid in pids:
        try:
            fields = read_small(f"{PROC}/{pid}/stat").rpartition(b")")[2].split()
        except OSError:
            continue
        found[pid] = int(fields[11]) + int(fields[12])
    return found


def busy_processes(before: Mapping[int, int], after: Mapping[int, int]) -> set[int]:
    """Those that used enough CPU time between two readings of cpu_ticks() that a thread of theirs may spin."""
    return {pid for pid, used in after.items() if pid in before and used - before[pid] >= LEAST_TICKS}


def thread_times(pid: int) -> dict[int, ThreadTimes]:
    """All its threads now; none if it is gone."""
    found = {}
    try:
        tids = threads(pid)
    except OSError:
        return {}
    for tid in tids:
        try:
            times = turns(tid)
            status = dict(FIELDS.findall((PROC / str(pid) / "task" / str(tid) / "status").read_bytes()))
        except OSError:  # it has ended
            continue
        if times is None:  # the same, or this kernel keeps no such times
            continue
        found[tid] = ThreadTimes(
            tid=tid,
            name=status.get(b"Name", b"").decode(errors="backslashreplace"),
            ran_ns=times.ran_ns,
            waited_ns=times.waited_ns,
            sleeps=int(status.get(b"voluntary_ctxt_switches", b"0")),
            cpus=status.get(b"Cpus_allowed_list", b"").decode(),
            ready=status.get(b"State", b"").startswith(b"R"),
        )
    return found


def spins(
    pid: int, before: Mapping[int, ThreadTimes], after: Mapping[int, ThreadTimes], seconds: float
) -> tuple[Spin, ...]:
    """Threads that were there all the time and never slept, busiest first."""
    found = []
    for tid, now in after.items():
        then = before.get(tid)
        if then is None or not _never_slept(then, now, seconds):
            continue
        allowed = parse_cpus(now.cpus)
        pinned = len(allowed) == 1
        found.append(
            Spin(
                tid=tid,
                name=now.name,
                cpu=min(allowed) if pinned else last_cpu(pid, tid),
                pinned=pinned,
                run_share=min(1.0, (now.ran_ns - then.ran_ns) / 1e9 / seconds),
            )
        )
    return tuple(sorted(found, key=lambda each: (-each.run_share, each.tid)))


def _never_slept(then: ThreadTimes, now: ThreadTimes, seconds: float) -> bool:
    """Where others have its CPU, a wait that goes on is not in its times yet: then its states tell."""
    if then.ready and now.ready and then.sleeps == now.sleeps:
        return True
    ready = (now.ran_ns - then.ran_ns + now.waited_ns - then.waited_ns) / 1e9
    return ready >= NEVER_SLEEPS * seconds and now.sleeps - then.sleeps <= MOST_SLEEPS_PER_SECOND * seconds
