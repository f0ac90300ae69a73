"""How long threads ran and waited in run queues (Documentation/scheduler/sched-stats.rst)."""

from typing import NamedTuple

from napctl.kernel.processes import PROC
from napctl.kernel.small_files import read_small

__all__ = ["run_delays_ns", "turns"]


class Turns(NamedTuple):
    """Of a thread, since its start."""

    ran_ns: int
    waited_ns: int
    times: int
    """How often it got a CPU."""


def run_delays_ns() -> dict[int, int] | None:
    """By CPU, since boot: time that threads stood in its run queue, each for itself. A wait counts when it ends.

    None on kernels without CONFIG_SCHEDSTATS, which have no such file.
    """
    try:
        text = (PROC / "schedstat").read_bytes()
    except FileNotFoundError:
        return None
    found = {}
    for line in text.splitlines():
        if line.startswith(b"cpu"):
            label, *columns = line.split()
            found[int(label[3:])] = int(columns[7])
    return found


def turns(pid: int) -> Turns | None:
    """None if it is gone, or on kernels without CONFIG_SCHED_INFO."""
    try:
        return Turns(*map(int, read_small(f"{PROC}/{pid}/schedstat").split()))
    except (FileNotFoundError, ProcessLookupError):
        return None
