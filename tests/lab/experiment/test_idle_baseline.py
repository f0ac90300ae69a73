"""Promises of compare: the idle machine is measured before the first cell, once, and shown."""

import subprocess
import sys
from pathlib import Path

import pytest

from napctl.experiment.run_directory import RunDirectory
from napctl.report.summary import read_run
from tests.lab.helpers import Napctl
from tests.unit.energy_trees import INTEL, Tree

pytestmark = pytest.mark.lab
WATTS = 20
IN_TREE = """
import sys, time
from pathlib import Path
import napctl.cli.main as main
import napctl.experiment.meter as meter
from napctl.kernel.energy.sources import Roots
from napctl.observe.energy import EnergyMeter

root, watts, began = Path(sys.argv.pop(1)), int(sys.argv.pop(1)), time.monotonic()
roots = Roots(root / "sys", root / "proc", root / "dev", str(root / "bin/ipmitool"))

class Meter(EnergyMeter):
    def __init__(self):
        super().__init__(roots)

    def _read_all(self, tallies):
        for zone in root.glob("sys/devices/virtual/powercap/*/*/energy_uj"):
            new = zone.with_name(".new")
            new.write_text(str(round((time.monotonic() - began) * watts * 1e6)))
            new.replace(zone)
        super()._read_all(tallies)

meter.EnergyMeter = Meter
main.run()
"""
"""Its packages use that power: each reading finds the energy of that moment, however late it comes."""


def in_tree(napctl: Napctl, tree: Tree, *arguments: object) -> subprocess.CompletedProcess[str]:
    """napctl on a machine with the energy sources of that tree."""
    return subprocess.run(
        [sys.executable, "-c", IN_TREE, tree.root, str(WATTS), *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, env=napctl.environment,
    )  # fmt: skip


def test_the_idle_machine_is_measured_before_the_first_cell_and_not_again(napctl: Napctl, tmp_path: Path) -> None:
    tree, run = Tree(tmp_path / "tree"), tmp_path / "run"
    tree.cpu(INTEL)
    tree.zone("intel-rapl:0", "package-0", 0)
    done = in_tree(napctl, tree, "compare", "base", "defer:50us", "--lab", "--rates", "2k", "--rounds", 1,
                   "--seconds", 0.3, "--warmup", 0, "--verbose", "--output", run)  # fmt: skip
    assert done.returncode == 0, done
    before = (run / "baseline.json").read_bytes()
    again = in_tree(napctl, tree, "compare", "--resume", run, "--verbose")

    assert again.returncode == 0, again
    assert (run / "baseline.json").read_bytes() == before, "not measured again"
    assert "measuring for 2 s what the machine uses" in done.stderr
    assert "measuring for 2 s what the machine uses" not in again.stderr
    found = read_run(RunDirectory(run))
    assert found.baseline is not None
    package = found.baseline.of("package")
    assert package is not None
    assert package.watts is not None
    assert WATTS / 2 < package.watts < WATTS * 2  # who writes and reads it may have to wait for a CPU
    assert found.baseline.seconds >= 2
    assert len(found.cells) == 2
    assert all("package_watts" in cell.metrics for cell in found.cells)
    for text in (done.stdout, again.stdout):
        assert "idle: package " in text
        assert "busy meanwhile" in " ".join(text.split())


def test_a_machine_without_meters_says_so_at_once(napctl: Napctl, tmp_path: Path) -> None:
    tree, run = Tree(tmp_path / "tree"), tmp_path / "run"
    done = in_tree(napctl, tree, "compare", "base", "--lab", "--rates", "2k", "--rounds", 1, "--seconds", 0.3,
                   "--warmup", 0, "--verbose", "--output", run)  # fmt: skip
    assert done.returncode == 0, done
    assert "energy: not measurable here: " in " ".join(done.stdout.split())
    assert "measuring for" not in done.stderr
    found = RunDirectory(run).baseline()
    assert found is not None
    assert found.kinds == ()
