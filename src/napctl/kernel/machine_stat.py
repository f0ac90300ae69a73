"""The machine as a whole since boot: time of each CPU by kind, and context switches (proc_stat(5))."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["TICKS_PER_SECOND", "CpuSeconds", "MachineStat", "machine_stat", "mean_frequency_khz", "parsed"]


STAT = Path("/proc/stat")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuSeconds:
    """One CPU since boot, s, in steps of 10 ms. None: this kernel does not tell.

    `idle` goes by the clock (get_idle_time() in fs/proc/stat.c), `steal` by the hypervisor's. The others are samples of
    the tick (account_process_tick() in kernel/sched/cputime.c), unless the kernel was built, and for some CPUs booted,
    to take them by the clock: samples miss what runs between two ticks, above all what timers drive.
    """

    user: float
    """With what runs at a nice value, and guests."""
    system: float
    idle: float
    """With waiting for disks, which is idle time as well."""
    irq: float | None
    """In handlers of interrupts. The tick is an interrupt, too, and comes only after a handler has ended: where ticks
    are all there is, this column stays 0 for ever, and that is None here."""
    softirq: float | None
    steal: float | None
    """Taken by the hypervisor; also 0 where it does not say."""


@dataclass(frozen=True)
class MachineStat:
    """All CPUs that are online."""

    by_cpu: dict[int, CpuSeconds]
    context_switches: int


def machine_stat() -> MachineStat:
    """Now: one reading of /proc/stat."""
    return parsed(STAT.read_text())


def parsed(text: str) -> MachineStat:
    """What a text of /proc/stat tells."""
    by_cpu, switches = {}, 0
    for line in text.splitlines():
        if line.startswith("cpu") and line[3] != " ":
            label, *columns = line.split()
            by_cpu[int(label[3:])] = _seconds([int(each) / TICKS_PER_SECOND for each in columns])
        elif line.startswith("ctxt "):
            switches = int(line.split()[1])
    if not any(cpu.irq for cpu in by_cpu.values()):
        by_cpu = {number: replace(cpu, irq=None) for number, cpu in by_cpu.items()}
    return MachineStat(by_cpu=by_cpu, context_switches=switches)


def _seconds(columns: Sequence[float]) -> CpuSeconds:
    """user, nice, system, idle; since 2.6.0 iowait, irq and softirq, since 2.6.11 steal; some containers show fewer."""
    user, nice, system, idle, *rest = columns
    iowait, irq, softirq, steal = (*rest, *(None,) * 4)[:4]
    return CpuSeconds(user + nice, system, idle + (iowait or 0.0), irq, softirq, steal)


def mean_frequency_khz() -> float | None:
    """Mean over CPUs of what cpufreq says that they run at; None where there is none, as in most virtual machines."""
    found = []
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    return sum(found) / len(found) if found else None
