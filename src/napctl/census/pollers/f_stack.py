"""F-Stack: FreeBSD's network stack on DPDK; by its arguments beside the signs of DPDK, or by its LD_PRELOAD library.

Every program of F-Stack is given --proc-id and --proc-type (https://github.com/F-Stack/f-stack, README and start.sh);
libff_syscall.so stands before libc's sockets of an unchanged one (adapter/syscall/README.md).

Never looked at live: made from its documentation.
"""

from dataclasses import replace

from napctl.census.pollers import dpdk
from napctl.census.pollers.detection import Detected
from napctl.census.pollers.suspects import Suspect, library

__all__ = ["detect"]


ARGUMENTS = ("--proc-id", "--proc-type")
REMEDY = "Let it sleep when nothing comes: idle_sleep=20 (µs) in the section dpdk of its config.ini."


def detect(suspect: Suspect) -> Detected | None:
    """A program of DPDK that is called as those of F-Stack are."""
    adapter = library(suspect, "libff_syscall.so")
    given = {argument.partition("=")[0] for argument in suspect.program.arguments[1:]}
    if adapter is None and not given.issuperset(ARGUMENTS):
        return None
    below = dpdk.detect(suspect)
    if below is None:
        return None
    sign = f"{adapter} in its maps" if adapter else "called with --proc-id and --proc-type"
    return replace(below, kind="F-Stack", evidence=(sign, *below.evidence), remedy=REMEDY)
