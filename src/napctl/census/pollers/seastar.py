"""Seastar: by its library or its threads (reactor-1 …); with the signs of DPDK its own stack takes packets.

Thread names: smp::configure() in src/core/reactor.cc. --poll-mode and --idle-poll-time-us: doc/tutorial.md and the
program's --help. Without DPDK its sockets are the kernel's, and what spins is no bypass.

Never looked at live: made from its documentation.
"""

import re
from dataclasses import replace

from napctl.census.pollers import dpdk
from napctl.census.pollers.detection import Detected
from napctl.census.pollers.suspects import Suspect, library

__all__ = ["detect"]


REACTOR = re.compile(r"^reactor-\d+$")
REMEDY = "Start it without --poll-mode, or with a lower --idle-poll-time-us: its reactors sleep then when idle."


def detect(suspect: Suspect) -> Detected | None:
    """Seastar that has DPDK below, or that spins."""
    mapped = library(suspect, "libseastar")
    reactors = sorted(name for name in suspect.threads if REACTOR.match(name))
    if mapped is None and not reactors:
        return None
    evidence = tuple([f"{mapped} in its maps"] if mapped else []) + tuple(
        [f"a thread named {reactors[0]}"] if reactors else []
    )
    if (below := dpdk.detect(suspect)) is not None:
        return replace(below, kind="Seastar", evidence=(*evidence, *below.evidence), remedy=REMEDY)
    if not suspect.spins:
        return None
    return Detected(
        kind="busy, no NIC",
        evidence=(*evidence, "Seastar without DPDK: its packets come through the kernel"),
        bypass=False,
        remedy=REMEDY,
    )
