"""VPP: by its libraries and its CLI's socket; `show runtime` tells what of a worker's 100 % is work.

Looks for libvlib in the mappings, or threads named vpp_main, vpp_wk_N; asks …/cli.sock, as vppctl does
(https://s3-docs.fd.io/vpp/, "show runtime"; src/vlib/node_cli.c). For each node that prints the clocks that it took for
a packet, or for a call if there were no packets. Nodes that do not poll ran for packets: their share of all clocks is
work. Input nodes poll: what of their clocks was for packets is not told, so it is counted as none. Clocks have three
digits, and so tell nothing of a second among days: the share is the mean since the counters were cleared, and beside it
stands the vector rate, the mean of the last 10 s.

Made from its documentation: it was never looked at live.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from napctl.census.pollers import bus_devices
from napctl.census.pollers.detection import Detected, Statement
from napctl.census.pollers.spinning import Spin
from napctl.census.pollers.suspects import Suspect, library
from napctl.census.pollers.telemetry import Unanswered, ask_cli
from napctl.model.text import printable

__all__ = ["ShowRuntime", "VppThread", "detect", "show_runtime"]


THREAD = re.compile(r"^(vpp_main|vpp_wk_\d+)$")
CLI = re.compile(r"/cli[^/]*\.sock$")
HEAD = re.compile(r"^Thread \d+ (\S+)")
NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,18})?(?:e[+-]?[0-9]{1,2})?)"
TIME = re.compile(rf"^Time {NUMBER}, [0-9.]+ sec internal node vector rate {NUMBER} loops/sec ")
COLUMNS = re.compile(rf"([0-9]{{1,18}}) ([0-9]{{1,18}}) [0-9]{{1,18}} {NUMBER} {NUMBER}")
"""Of a node, behind its name and its state, which may be two words: calls, vectors, suspends, clocks, vectors/call."""
POLLING = "polling"
REMEDY = (
    "Let it take interrupts while little comes: `set interface rx-mode INTERFACE adaptive` (vppctl), or "
    "`poll-sleep-usec` in the section unix of startup.conf."
)


@dataclass(frozen=True)
class VppThread:
    """One thread of `show runtime`; all since its counters were cleared."""

    seconds: float
    vector_rate: float
    """Packets of a frame, of 256 at most; mean of 10 s."""
    received: int = 0
    """Vectors of its nodes that poll. Rates that it prints are means of all that time: they tell no second."""
    clocks: float = 0.0
    """Of all its nodes."""
    work_clocks: float = 0.0
    """Of those that do not poll."""

    @property
    def work_share(self) -> float | None:
        """None: its nodes took no clocks, or it does not say."""
        return self.work_clocks / self.clocks if self.clocks else None

    @property
    def source(self) -> str:
        """Where the share is from, and over how long."""
        return f"VPP show runtime, mean of {self.seconds:.0f} s, vector rate {self.vector_rate:.2f} of 256"


@dataclass
class ShowRuntime:
    """The account of a VPP."""

    path: str
    pid: int
    source: str = "VPP show runtime"

    def read(self) -> Statement:
        """Packets by its threads, and the share of clocks that went into them."""
        try:
            threads = show_runtime(ask_cli(self.path, self.pid, "show runtime"))
        except Unanswered as why:
            return Statement(troubles=(f"VPP's CLI: {why}",))
        return Statement(
            received=sum(each.received for each in threads.values()) if any(map(_tells, threads.values())) else None,
            shares={
                name: (each.work_share, each.source) for name, each in threads.items() if each.work_share is not None
            },
        )

    def key(self, thread: Spin, pid: int) -> str | None:
        """Its name."""
        return thread.name if THREAD.match(thread.name) else "vpp_main" if thread.tid == pid else None


def _tells(thread: VppThread) -> bool:
    """Whether its nodes could be read: one without any would have had no packet."""
    return thread.clocks > 0


def show_runtime(text: str) -> dict[str, VppThread]:
    """{thread: what it says}. A VPP without workers prints no line that names its thread: vpp_main."""
    return dict(_threads(text))


def _threads(text: str) -> Iterator[tuple[str, VppThread]]:
    name, found = "vpp_main", None
    for line in text.splitlines():
        if head := HEAD.match(line):
            if found is not None:
                yield name, found
            name, found = head[1], None
        elif found is None and (time := TIME.match(line)):
            found = VppThread(float(time[1]), float(time[2]))
        elif found is not None and (node := _node(line)):
            state, calls, vectors, each = node
            clocks = each * (vectors or calls)
            received, work = (vectors, 0.0) if state == POLLING else (0, clocks if vectors else 0.0)
            found = replace(
                found,
                received=found.received + received,
                clocks=found.clocks + clocks,
                work_clocks=found.work_clocks + work,
            )
    if found is not None:
        yield name, found


def _node(line: str) -> tuple[str, int, int, float] | None:
    """State, calls, vectors, clocks for each of them; None: the line tells of no node. Word by word, as a pattern for
    the whole line may try so many ways of dividing the spaces in it that it never ends."""
    words = line.split()
    told = COLUMNS.fullmatch(" ".join(words[-5:])) if len(words) >= 7 else None
    return (" ".join(words[1:-5]), int(told[1]), int(told[2]), float(told[3])) if told else None


def detect(suspect: Suspect) -> Detected | None:
    """VPP, also one that stands on DPDK."""
    mapped = library(suspect, "libvlib.so")
    threads = sorted(name for name in suspect.threads if THREAD.match(name))
    if mapped is None and not threads:
        return None
    controls = sorted(path for path in suspect.listens if CLI.search(path))
    evidence = [f"{printable(mapped)} in its maps"] if mapped else []
    evidence += [f"a thread named {threads[0]}"] if threads else []
    evidence += [f"it listens on {printable(controls[0])}"] if controls else []
    devices = bus_devices.drivers_devices(suspect.names)
    pid = suspect.process.pid
    return Detected(
        kind="VPP",
        evidence=tuple(evidence),
        devices=devices,
        account=ShowRuntime(controls[0], pid) if controls else None,
        of_kernel=not devices,
        remedy=REMEDY,
        troubles=() if controls else ("its CLI's socket was not found",),
    )
