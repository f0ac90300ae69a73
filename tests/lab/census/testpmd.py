"""dpdk-testpmd in the lab: Debian's own, or that of a root of Debian 13; no huge pages, on the server's CPU."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import pytest

from napctl.census.pollers.telemetry import Unanswered, dpdk_conversation
from napctl.census.pollers.watch import PollerWatch
from napctl.kernel.process_tree import parents, with_descendants
from napctl.kernel.processes import look_at_all
from napctl.lab.bed import Lab
from napctl.model.census import Poller
from tests.lab.helpers import until

TESTPMD = "dpdk-testpmd"
RUN = "run/dpdk"
"""Below its root: where each has a directory of its own."""


@dataclass(frozen=True)
class Testpmd:
    """One that runs."""

    __test__ = False  # it is no class of tests

    pid: int
    telemetry: Path
    """As it sees it."""

    def hide(self) -> "Testpmd":
        """Let napctl not find its telemetry any more; the one returned still reaches it."""
        elsewhere, root = self.telemetry.with_name("elsewhere"), f"/proc/{self.pid}/root"
        Path(f"{root}{self.telemetry}").rename(f"{root}{elsewhere}")
        return Testpmd(self.pid, elsewhere)

    def cycles(self) -> tuple[int, int]:
        """Busy ones and all of its worker, by its own account."""
        with dpdk_conversation(os.fspath(self.telemetry), self.pid) as talk:
            usage = talk.ask("/eal/lcore/usage", dict[str, list[int | str]])
            assert usage is not None
            (busy,), (total,) = usage["busy_cycles"], usage["total_cycles"]
            return int(busy), int(total)


@contextmanager
def running_testpmd(
    lab: Lab, *devices: str, mode: str = "rxonly", options: Sequence[str] = (), under: Sequence[str] = ()
) -> Iterator[Testpmd]:
    """`devices`: what --vdev takes. `under`: what it is started by, as in another root."""
    if not under and shutil.which(TESTPMD) is None:
        pytest.skip("dpdk-dev is not installed")
    prefix, cpu = f"napctl-{token_hex(4)}", lab.server.cpu
    eal = ["--no-huge", "-m", "256", "--no-pci", f"--file-prefix={prefix}", f"--lcores=0@{cpu},1@{cpu}"]
    own = [f"--forward-mode={mode}", "--total-num-mbufs=8192", "--stats-period=1000", "--nb-cores=1", *options]
    command = [*under, TESTPMD, *eal, *(f"--vdev={device}" for device in devices), "--", *own]
    process = lab.server.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        (running,) = until(lambda: tuple(polling(process, prefix)), "testpmd polls", 60)
        yield running
    finally:
        for pid in reversed(with_descendants([process.pid], parents(look_at_all()))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        shutil.rmtree(Path("/", RUN, prefix), ignore_errors=True)


def polling(process: subprocess.Popen[bytes], prefix: str) -> Iterator[Testpmd]:
    """Once its telemetry tells of its ports."""
    if process.poll() is not None:
        raise AssertionError(process.communicate()[0].decode())
    seen = look_at_all()
    for pid in with_descendants([process.pid], parents(seen)):
        path = Path("/", RUN, prefix, "dpdk_telemetry.v2")
        if pid in seen and seen[pid].process.name == TESTPMD:
            with suppress(Unanswered), dpdk_conversation(os.fspath(path), pid) as talk:
                if talk.ask("/ethdev/list", list[int]):
                    yield Testpmd(pid, path)


def looked(state: Path, pid: int, seconds: float = 0.5) -> Poller:
    """What napctl says of a process."""
    with PollerWatch(state) as looking:
        looking.begin()
        time.sleep(seconds)
        (found,) = [each for each in looking.end() if each.pid == pid]
    return found


def spinning(state: Path, pid: int, seconds: float = 0.5, name: str = "") -> Poller:
    """The same, once a thread spins whose name begins so."""
    found: list[Poller] = []

    def spins() -> bool:
        found.append(looked(state, pid, seconds))
        return any(each.name.startswith(name) for each in found[-1].threads)

    until(spins, "a thread of it spins")
    return found[-1]
