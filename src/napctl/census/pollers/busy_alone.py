"""What keeps a CPU busy without any sign of a NIC: a computation, a spin lock, a log tailer. It is no bypass, and not
called one.

From outside a thread that computes and one that spins are the same: neither ever sleeps, and /proc/PID/task/TID/syscall
and stack tell only of threads that wait. What can be seen is whether it asks the kernel for anything: its time there,
and its reads and writes.
"""

from dataclasses import dataclass

from napctl.census.pollers.detection import Detected
from napctl.census.pollers.suspects import Suspect
from napctl.kernel.cpu_time import user_and_system_seconds
from napctl.kernel.transfers import transfers
from napctl.model.text import each
from napctl.model.units import figure, percent

__all__ = ["Calls", "calls", "detect", "words"]


LEAST_SECONDS = 0.1
"""Of CPU time: how it is split is sampled by the tick."""
INTERRUPTS_SHARE = 0.02
"""Of its CPU time: so much in the kernel may be interrupts and softirqs alone, which the tick counts there too."""
LEAST_PER_SECOND = 100.0
"""Reads and writes."""


@dataclass(frozen=True)
class Calls:
    """What a process used of its CPUs, and what it asked the kernel for, since its start."""

    user_seconds: float
    kernel_seconds: float
    transfers: int | None
    """Reads and writes; None: that may not be read."""


def detect(suspect: Suspect) -> Detected | None:
    """Whatever never sleeps and is nothing else."""
    if not suspect.spins:
        return None
    evidence = ["it computes, spins, or has more work than its CPU can do"]
    if suspect.packet_sockets:
        copies = f"it may look for copies of packets, by its packet sockets on {each(suspect.devices)}"
        evidence.append(f"{copies} [/proc/{suspect.process.pid}/net/packet]")
    return Detected(
        kind="busy, no NIC",
        evidence=tuple(evidence),
        bypass=False,
    )


def calls(pid: int) -> Calls | None:
    """Now; None if it is gone."""
    try:
        user, kernel = user_and_system_seconds(pid)
    except OSError:
        return None
    return Calls(user, kernel, transfers(pid))


def words(before: Calls, after: Calls, seconds: float) -> str:
    """What that tells of what it does; empty: it ran for too short a time."""
    user, kernel = after.user_seconds - before.user_seconds, after.kernel_seconds - before.kernel_seconds
    if user < 0 or kernel < 0 or user + kernel < LEAST_SECONDS or seconds <= 0:
        return ""
    share = kernel / (user + kernel)
    moved = None if before.transfers is None or after.transfers is None else after.transfers - before.transfers
    rate = None if moved is None else moved / seconds
    told = f"{percent(share)} of its CPU time is the kernel's"
    if rate is not None and rate >= LEAST_PER_SECOND:
        return f"{told}, {figure(rate)} reads and writes a second: it asks again and again, or moves data"
    if share > INTERRUPTS_SHARE:
        return f"{told}: it calls the kernel, and never waits there"
    return f"{told}: it asks the kernel for nothing, and computes or spins on memory"
