"""CPU time of processes as the scheduler accounts it, not as the tick samples it.

The tick misses work that runs between ticks: what timers drive, above all (kernel/sched/cputime.c). The scheduler's
figure is exact, and includes the softirqs and interrupts that ran on top of the task.
"""

import os
import time

from napctl.kernel.machine_stat import TICKS_PER_SECOND, machine_stat
from napctl.kernel.processes import PROC
from napctl.kernel.small_files import read_small

__all__ = ["clock_seconds", "idle_seconds", "run_seconds", "run_seconds_by_thread", "user_and_system_seconds"]


def run_seconds(pid: int) -> float:
    """CPU time of all threads of a process since their start, s. Raises OSError if it is gone."""
    return sum(run_seconds_by_thread(pid).values())


def clock_seconds(pid: int) -> float:
    """The same with those that have ended, and exact to this moment: by the process's CPU-time clock
    (clock_getcpuclockid(3)). Other figures of a thread that runs are those of its last tick. Raises OSError."""
    return time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED: include/linux/posix-timers_types.h


def run_seconds_by_thread(pid: int) -> dict[int, float]:
    """CPU time of each thread of a process since its start, s. Raises OSError if the process is gone."""
    found = {}
    for tid in os.listdir(f"{PROC}/{pid}/task"):  # noqa: PTH208 - hundreds
        try:
            found[int(tid)] = _thread_seconds(f"{PROC}/{pid}/task/{tid}")
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended meanwhile
    return found


def _thread_seconds(task: str) -> float:
    """From schedstat, in ns; on kernels without CONFIG_SCHED_INFO from stat, whose sum of user and system time is the
    same figure in steps of 10 ms (cputime_adjust() in kernel/sched/cputime.c)."""
    try:
        return int(read_small(f"{task}/schedstat").split()[0]) / 1e9
    except FileNotFoundError:
        return sum(_user_and_system_seconds(task))


def user_and_system_seconds(pid: int) -> tuple[float, float]:
    """CPU time of all threads of a process, ended ones too, since its start: (user, system), s, in steps of 10 ms.

    The sum is the scheduler's exact one. How it is split is sampled by the tick, and scaled to that sum
    (cputime_adjust() in kernel/sched/cputime.c). Raises OSError if the process is gone.
    """
    return _user_and_system_seconds(f"{PROC}/{pid}")


def _user_and_system_seconds(directory: str) -> tuple[float, float]:
    text = read_small(f"{directory}/stat")
    fields = text[text.rindex(b")") + 2 :].split()  # a name may be any bytes
    return int(fields[11]) / TICKS_PER_SECOND, int(fields[12]) / TICKS_PER_SECOND


def idle_seconds() -> dict[int, float]:
    """Time since boot in which each CPU that is online had nothing to do, s, in steps of 10 ms.

    Unlike other columns of /proc/stat it goes by the clock (napctl.kernel.machine_stat).
    """
    return {cpu: each.idle for cpu, each in machine_stat().by_cpu.items()}
