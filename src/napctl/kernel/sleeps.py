"""How often a thread went to sleep of its own accord (proc_pid_status(5))."""

from pathlib import Path

__all__ = ["sleeps"]


PROC = Path("/proc")
FIELD = b"\nvoluntary_ctxt_switches:"


def sleeps(pid: int) -> int | None:
    """Since its start; None if it is gone. A NAPI thread sleeps when it has come to the end of its ring."""
    try:
        text = (PROC / str(pid) / "status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.partition(FIELD)[2].split(b"\n", 1)[0])
