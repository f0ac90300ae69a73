"""Before the machine's other work: a test promises something of napctl, not of who else runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FIRST = -8
"""A nice value: six parts of seven of a CPU that another process keeps busy. With more the kernel's own threads, which
remove devices and end the grace periods of RCU, would have too little."""
GROUP = Path("/proc/self/autogroup")


@contextmanager
def first() -> Iterator[None]:
    """This process runs before others, and so does what it starts; the lab's NAPI threads are as who builds the lab.

    Where sessions are scheduled as groups it is the group's nice value that counts (sched(7), "The autogroup feature").
    """
    here, group = os.getpriority(os.PRIO_PROCESS, 0), group_nice(GROUP)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, FIRST)
        if group is not None:
            GROUP.write_text(str(FIRST))
    except PermissionError:  # nor is there a lab then
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, here)
        if group is not None:
            GROUP.write_text(str(group))


def group_nice(path: Path) -> int | None:
    """The nice value that /proc/PID/autogroup tells; None if the process is in no such group: then it is empty."""
    words = path.read_text().split() if path.exists() else []
    return int(words[-1]) if words else None
