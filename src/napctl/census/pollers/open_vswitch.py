"""Open vSwitch with DPDK: by its PMD threads; pmd-stats-show tells what of their 100 % is work.

Looks for threads named pmd-cNN/id:N (pmd_thread_main() in lib/dpif-netdev.c of Open vSwitch), and asks its control
socket, …/ovs-vswitchd.PID.ctl, as ovs-appctl(8) does. Idle and processing cycles count up until somebody clears them
(dpif-netdev/pmd-stats-clear): https://docs.openvswitch.org/en/latest/topics/dpdk/pmd/.
"""

import re
from dataclasses import dataclass, field, replace

from napctl.census.pollers import dpdk
from napctl.census.pollers.detection import Detected, Statement
from napctl.census.pollers.dpdk import Telemetry
from napctl.census.pollers.spinning import Spin
from napctl.census.pollers.suspects import Suspect
from napctl.census.pollers.telemetry import Unanswered, ask_unixctl
from napctl.model.text import printable

__all__ = ["PmdStats", "cycles_by_core", "detect"]


PMD = re.compile(r"^pmd-c(\d+)/id:")
CONTROL = re.compile(r"/ovs-vswitchd[\w-]*\.\d+\.ctl$")
HEAD = re.compile(r"^pmd thread numa_id -?\d+ core_id (\d+):")
CYCLES = re.compile(r"^ +(idle|processing) cycles: (\d{1,18})\b")
STATISTICS = "dpif-netdev/pmd-stats-show"
REMEDY = (
    "Let its PMD threads sleep when little comes: ovs-vsctl set Open_vSwitch . other_config:pmd-sleep-max=50 (µs; "
    "Open vSwitch 3.2 and newer; pmd-maxsleep in 3.1)."
)


@dataclass
class PmdStats:
    """The account of ovs-vswitchd: cycles by its control socket, packets by DPDK's telemetry, if that answers."""

    path: str
    pid: int
    telemetry: Telemetry | None = None
    source: str = field(default=f"Open vSwitch {STATISTICS}")

    def read(self) -> Statement:
        """Both."""
        ports = self.telemetry.read() if self.telemetry is not None else Statement()
        try:
            cycles = cycles_by_core(ask_unixctl(self.path, self.pid, STATISTICS))
        except Unanswered as why:
            return replace(ports, cycles={}, troubles=(*ports.troubles, f"{STATISTICS}: {why}"))
        return replace(ports, cycles=cycles)

    def key(self, thread: Spin, pid: int) -> str | None:
        """The core in its name."""
        named = PMD.match(thread.name)
        return str(int(named[1])) if named else None


def cycles_by_core(text: str) -> dict[str, tuple[int, int]]:
    """{core: (processing, all)} of what pmd-stats-show prints; a core of which it prints neither is missing."""
    found: dict[str, dict[str, int]] = {}
    core = None
    for line in text.splitlines():
        if not line.startswith(" "):
            head = HEAD.match(line)
            core = head[1] if head else None
        elif core is not None and (told := CYCLES.match(line)):
            found.setdefault(core, {})[told[1]] = int(told[2])
    return {
        core: (told["processing"], told["processing"] + told["idle"]) for core, told in found.items() if len(told) == 2
    }


def detect(suspect: Suspect) -> Detected | None:
    """ovs-vswitchd with PMD threads. Without any it forwards in the kernel, and is no bypass."""
    pmds = sorted(name for name in suspect.threads if PMD.match(name))
    if not pmds:
        return None
    below = dpdk.detect(suspect)
    account, troubles = None, list(below.troubles if below else ())
    controls = sorted(path for path in suspect.listens if CONTROL.search(path))
    if controls:
        telemetry = below.account if below and isinstance(below.account, Telemetry) else None
        account = PmdStats(controls[0], suspect.process.pid, telemetry)
    else:
        troubles.append("its control socket (ovs-vswitchd.PID.ctl) was not found")
    evidence = (f"a thread named {printable(pmds[0])}", *(f"it listens on {printable(path)}" for path in controls[:1]))
    if below is None:
        return Detected(kind="Open vSwitch with DPDK", evidence=evidence, account=account, remedy=REMEDY,
                        troubles=tuple(troubles))  # fmt: skip
    return Detected(
        kind="Open vSwitch with DPDK",
        evidence=(*evidence, *below.evidence),
        devices=below.devices,
        account=account if account is not None else below.account,
        copies=below.copies,
        counts_include_port=below.counts_include_port,
        of_kernel=below.of_kernel,
        remedy=REMEDY,
        troubles=tuple(troubles),
    )
