"""Promises of what is measured in a cell: CPU time by kind is found where known work puts it."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from napctl.experiment import meter as measuring
from napctl.experiment.cpu_shares import SCHEDULER, SPLIT
from napctl.experiment.meter import CellMeter
from napctl.lab.bed import Lab
from napctl.load.base import Figures
from napctl.model.metrics import BY_NAME
from napctl.observe.energy import EnergyMeter
from tests.unit.energy_trees import INTEL, Tree

pytestmark = pytest.mark.lab
SECONDS = 1.2
"""Enough CPU time for a split, also where the CPU is shared with another."""
TRIES = 5
"""As others may have the CPU for all of one."""
IN_USER_SPACE = [sys.executable, "-c", "while True: pass"]
IN_THE_KERNEL = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1M"]
FLOOD = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
    to.setsockopt(17, 103, 16)  # UDP_SEGMENT: 60 packets for each call
    to.connect((sys.argv[1], int(sys.argv[2])))
    while True:
        to.send(bytes(16 * 60))
"""


@contextmanager
def running(lab: Lab, command: list[str], *, on_server: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    child = (lab.server if on_server else lab.client).start(command)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def measured(lab: Lab, *pids: int, seconds: float = SECONDS) -> Figures:
    end = lab.server
    with CellMeter(end.namespace, [end.device], pids, cpus=[end.cpu]) as meter:
        meter.begin()
        time.sleep(seconds)
        return meter.end()


@pytest.mark.alone
@pytest.mark.parametrize(
    ("command", "most", "least"),
    [(IN_USER_SPACE, "user", "system"), (IN_THE_KERNEL, "system", "user")],
    ids=["a loop", "reading zeros"],
)
def test_work_is_found_where_it_is_done_and_its_parts_add_up_to_the_schedulers_sum(
    lab: Lab, command: list[str], most: str, least: str
) -> None:
    with running(lab, command) as server:
        for _ in range(TRIES):
            found = measured(lab, server.pid)
            share = {name: found.metrics[f"server_{name}_share"] for name in ("cpu", "user", "system")}
            assert share["user"] + share["system"] == pytest.approx(share["cpu"])
            assert found.sources["server_cpu_share"] == SCHEDULER
            if found.sources[f"server_{most}_share"] == SPLIT and share[most] > 3 * share[least]:
                break

    assert found.sources[f"server_{most}_share"] == SPLIT
    assert share[most] > 3 * share[least], found.metrics
    assert found.metrics[f"{most}_share"] > 0.2, "of the CPU that it runs on"


@pytest.mark.alone
def test_what_napi_threads_run_is_shown_beside_the_server(lab: Lab) -> None:
    """Packets that nobody reads, as many as fit: all that the server's CPU does for them the NAPI thread does."""
    with socket_of(lab) as port, running(lab, [sys.executable, "-c", FLOOD, lab.server.address, str(port)],
                                         on_server=False):  # fmt: skip
        for _ in range(TRIES):
            busy = measured(lab)
            if busy.metrics["napi_thread_share"] > 0.1:
                break
    quiet = measured(lab, seconds=0.3)

    assert busy.metrics["napi_thread_share"] > 0.1, busy.metrics
    assert busy.metrics["napi_thread_share"] > 10 * quiet.metrics["napi_thread_share"]
    assert busy.sources["napi_thread_share"] == SCHEDULER
    # Of the time in which the CPU was busy. None is told of the quiet span if that had no such time, to 10 ms.
    network = busy.metrics["network_cpu_share"] * busy.metrics["cpu_share"]
    assert network == pytest.approx(busy.metrics["napi_thread_share"] + busy.metrics["softirq_share"], rel=0.1)


@contextmanager
def socket_of(lab: Lab) -> Iterator[int]:
    with lab.server.namespace.entered():
        held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with held:
        held.bind((lab.server.address, 0))
        yield held.getsockname()[1]


def test_every_share_says_where_it_comes_from(lab: Lab) -> None:
    found = measured(lab, seconds=0.3)
    shares = [name for name in found.metrics if BY_NAME[name].of]
    assert {"cpu_share", "user_share", "system_share", "softirq_share", "napi_thread_share"} <= set(shares)
    assert all(found.sources[name] for name in shares)


def test_the_idle_machine_is_measured_for_as_long_as_asked(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(tmp_path)
    tree.cpu(INTEL)
    tree.zone("intel-rapl:0", "package-0", 0)
    monkeypatch.setattr(measuring, "EnergyMeter", partial(EnergyMeter, tree.roots))
    with CellMeter(lab.server.namespace, [lab.server.device]) as meter:
        found = meter.idle(0.5)
    assert found.seconds >= 0.5
    assert found.cpu_share is not None
    assert [kind.kind for kind in found.kinds] == ["package"]


def test_where_nothing_can_be_measured_no_time_is_lost_and_the_reason_is_told(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "EnergyMeter", partial(EnergyMeter, Tree(tmp_path).roots))
    with CellMeter(lab.server.namespace, [lab.server.device]) as meter:
        began = time.monotonic()
        found = meter.idle(30)
    assert time.monotonic() - began < 10
    assert found.why.startswith("not measurable here: ")
    assert found.kinds == ()
