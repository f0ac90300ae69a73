"""CPU time of processes as the scheduler accounts it, not as the tick samples it.

The tick misses work that runs between ticks: what timers drive, above all (kernel/sched/cputime.c). The scheduler's
figure is exact, and includes the softirqs and interrupts that ran on top of the task.
"""

import os
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def run_seconds(pid: int) -> float:
    """CPU time of all threads of a process since their start, s. Raises OSError if it is gone.

    From schedstat, in ns; on kernels without CONFIG_SCHED_INFO from stat, whose sum of user and system time is the
    same figure in steps of 10 ms (cputime_adjust() in kernel/sched/cputime.c).
    """
    try:
        tasks = list((PROC / str(pid) / "task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except FileNotFoundError:
        text = (PROC / str(pid) / "stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
