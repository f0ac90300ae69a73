"""What spins without any sign of a NIC: a spin lock, a log tailer, a computation. It is no bypass, and not called one.

From outside a thread that computes and one that spins are the same: neither ever sleeps.
"""

from napctl.census.pollers.detection import Detected
from napctl.census.pollers.suspects import Suspect

__all__ = ["detect"]


def detect(suspect: Suspect) -> Detected | None:
    """Whatever spins and is nothing else."""
    if not suspect.spins:
        return None
    return Detected(
        kind="spins, no NIC",
        evidence=("it never sleeps: it spins, computes, or has more work than its CPU can do",),
        bypass=False,
    )
