"""Comparing plans on a real driver: each is in force while its cells are measured, and nothing of it stays."""

import re
from pathlib import Path

import pytest

from napctl.experiment.run_directory import RunDirectory
from napctl.model.experiment import Cell
from tests.lab.helpers import Napctl, until
from tests.lab.plans import HEAD
from tests.vm.wire import Wire

PLAN = '[e1000e0]\ndriver = "e1000e"\nrx-queues = 1\ntx-queues = 1\n[e1000e0.coalescing]\nrx-usecs = 60\n'
ROUND_TRIP = "regex:latency_avg_us[ms]=^rtt .* = [0-9.]+/([0-9.]+)/"
QUICK = ("--seconds", 0.2, "--warmup", 0, "--settle", 0)


@pytest.fixture
def plan(tmp_path: Path) -> str:
    """A treatment: a plan that no preset has."""
    path = tmp_path / "plan.toml"
    path.write_text(HEAD + PLAN)
    return f"plan:{path}"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "run"


def pings(wire: Wire) -> str:
    """A load over the wire, from its far end, that also tells with what rx-usecs it was answered."""
    inside = f"ip netns exec {wire.peer_namespace}"
    return f"ethtool -c {wire.device}; {inside} ping -q -W 10 -c 20 -i 0.01 {wire.address}; ethtool -c {wire.device}"


def told(directory: RunDirectory, cell: Cell) -> set[int]:
    """The rx-usecs before and after a cell's load, as ethtool told them."""
    found = re.findall(r"^rx-usecs:\s+(\d+)$", directory.raw(cell.position).read_text(), re.MULTILINE)
    assert len(found) == 2
    return set(map(int, found))


@pytest.mark.timeout(300)
def test_a_plan_and_the_preset_for_coalescing_are_in_force_in_their_cells_and_only_there(
    wire: Wire, napctl: Napctl, plan: str, output: Path
) -> None:
    before = wire.settings()
    done = napctl(
        "compare", "base", plan, "--preset", "coalescing", "--device", wire.device, "--load", pings(wire),
        "--adapter", ROUND_TRIP, "--rounds", 1, *QUICK, "--output", output, timeout_s=240,
    )  # fmt: skip

    assert done.status in (0, 1), done
    assert wire.settings() == before
    assert napctl.live() == []
    directory = RunDirectory(output)
    plans, cells = directory.config().plans, directory.cells()
    wanted = {name: each.devices[0].coalescing for name, each in plans.items()}
    usecs = {name: each.rx_usecs for name, each in wanted.items() if each is not None} | {"base": before["rx-usecs"]}
    assert (usecs[plan], usecs["coalescing-off"], usecs["base"]) == (60, 0, 3)
    assert len(set(usecs.values())) == 4
    assert sorted(cell.treatment for cell in cells) == sorted(usecs)
    for cell in cells:
        assert cell.failed == ""
        assert told(directory, cell) == {usecs[cell.treatment]}
        assert cell.metrics["latency_avg_us"] > 0
        assert cell.metrics["polls_per_second"] > 0
        assert cell.metrics["interrupts_per_second"] > 0


@pytest.mark.long
@pytest.mark.timeout(300)
def test_after_kill_9_in_a_cell_the_driver_has_its_former_coalescing(
    wire: Wire, napctl: Napctl, plan: str, output: Path
) -> None:
    before = wire.settings()
    load = f"{pings(wire)}; sleep 90"
    arguments = ("--device", wire.device, "--load", load, "--adapter", ROUND_TRIP, "--limit", 100, *QUICK)
    raw = RunDirectory(output).raw(0)
    with napctl.start("compare", plan, *arguments, "--output", output) as running:
        try:
            until(lambda: raw.exists() and "rtt" in raw.read_text(), "the load to be made", 150)
            assert wire.settings()["rx-usecs"] == 60
        finally:
            running.kill()
    until(lambda: wire.settings() == before, "the guard to restore", 60)
    assert RunDirectory(output).cells() == ()
    assert napctl("recover", timeout_s=120).status == 0
    assert napctl.live() == []
    assert wire.settings() == before
