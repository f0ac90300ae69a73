"""Whether a thread sleeps of its own accord (proc_pid_status(5))."""

from typing import NamedTuple

from napctl.kernel.processes import PROC

__all__ = ["Sleeps", "sleeps"]


class Sleeps(NamedTuple):
    """Of one thread. A NAPI thread sleeps when it has come to the end of its ring."""

    times: int
    """That it went to sleep, since its start."""
    now: bool
    """Whether it sleeps at this moment."""


def sleeps(pid: int) -> Sleeps | None:
    """None if it is gone."""
    try:
        text = (PROC / str(pid) / "status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    times = int(text.partition(b"\nvoluntary_ctxt_switches:")[2].split(b"\n", 1)[0])
    return Sleeps(times, text.partition(b"\nState:")[2].split(maxsplit=1)[0] in (b"S", b"I", b"D"))
