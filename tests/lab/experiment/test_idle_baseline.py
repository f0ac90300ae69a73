"""Promises of compare: the idle machine is measured before the first cell, once, and shown."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.experiment.run_directory import RunDirectory
from napctl.report.summary import read_run
from tests.lab.helpers import Napctl
from tests.meanwhile import again_and_again
from tests.unit.energy_trees import INTEL, Tree

pytestmark = pytest.mark.lab
WATTS = 20
IN_TREE = """
import sys
from functools import partial
from pathlib import Path
import napctl.cli.main as main
import napctl.experiment.meter as meter
from napctl.kernel.energy.sources import Roots
root = Path(sys.argv.pop(1))
roots = Roots(root / "sys", root / "proc", root / "dev", str(root / "bin/ipmitool"))
meter.EnergyMeter = partial(meter.EnergyMeter, roots)
main.run()
"""


def in_tree(napctl: Napctl, tree: Tree, *arguments: object) -> subprocess.CompletedProcess[str]:
    """napctl on a machine with the energy sources of that tree."""
    return subprocess.run(
        [sys.executable, "-c", IN_TREE, tree.root, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, env=napctl.environment,
    )  # fmt: skip


@contextmanager
def using_power(tree: Tree) -> Iterator[None]:
    """The package uses WATTS."""
    began = time.monotonic()

    def use() -> None:
        tree.zone("intel-rapl:0", "package-0", round((time.monotonic() - began) * WATTS * 1e6))

    tree.zone("intel-rapl:0", "package-0", 0)
    with again_and_again(use, 0.005):
        yield


def test_the_idle_machine_is_measured_before_the_first_cell_and_not_again(napctl: Napctl, tmp_path: Path) -> None:
    tree, run = Tree(tmp_path / "tree"), tmp_path / "run"
    tree.cpu(INTEL)
    with using_power(tree):
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
    assert WATTS / 2 < package.watts < WATTS * 2  # what uses it in this test may have to wait for a CPU
    assert found.baseline.seconds >= 2
    # In a cell as short as these the meter may not have moved while what moves it waited for a CPU.
    assert any("package_watts" in cell.metrics for cell in found.cells)
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
