"""How often a process read and wrote: proc_pid_io(5)."""

import re

from napctl.kernel.processes import PROC

__all__ = ["transfers"]


CALLS = re.compile(rb"^sysc[rw]: (\d+)$", re.M)


def transfers(pid: int) -> int | None:
    """Calls of read(2), write(2) and the like of all its threads since its start, also those that moved nothing;
    recv(2) and send(2) are none. None: this kernel does not count them, we may not look, or it is gone."""
    try:
        found = CALLS.findall((PROC / str(pid) / "io").read_bytes())
    except OSError:
        return None
    return sum(map(int, found)) if found else None
