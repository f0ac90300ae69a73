"""The machine as a whole since boot: time of its CPUs by kind, and context switches (proc_stat(5))."""

import os
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class MachineStat:
    """All CPUs together, s."""

    cpus: int
    steal_seconds: float
    context_switches: int


def machine_stat() -> MachineStat:
    """Now."""
    cpus, switches = 0, 0
    fields: list[int] = []
    for line in STAT.read_text().splitlines():
        label, *rest = line.split()
        if label == "cpu":
            fields = [int(each) for each in rest]
        elif label.startswith("cpu"):
            cpus += 1
        elif label == "ctxt":
            switches = int(rest[0])
    return MachineStat(
        cpus=cpus,
        steal_seconds=fields[7] / TICKS_PER_SECOND,
        context_switches=switches,
    )


def mean_frequency_khz() -> float | None:
    """Mean over CPUs of what cpufreq says that they run at; None where there is none, as in most virtual machines."""
    found = []
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    return sum(found) / len(found) if found else None
