"""Promises of the demo: one table, sentences, a page, and nothing left."""

import os
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest

from napctl.measure.rundir import RunDirectory
from tests.lab.helpers import Napctl, Ran, until
from tests.watchdog import MARK, marked_by

pytestmark = pytest.mark.lab
QUICK = ("--rounds", 2, "--seconds", 0.5)


def namespaces() -> set[str]:
    """Network namespaces that a process is in or holds open: of those that were started by the tests."""
    found = set()
    for process in (Path(f"/proc/{pid}") for pid in marked_by(os.environ[MARK])):
        for link in (process / "ns/net", *process.glob("fd/*")):
            with suppress(OSError):
                found.add(str(link.readlink()))
    return {name for name in found if name.startswith("net:[")}


def test_the_demo_compares_four_treatments_at_three_loads_and_leaves_a_report_alone(
    napctl: Napctl, tmp_path: Path
) -> None:
    before = namespaces()

    with napctl.start("demo", *QUICK, "--seed", 7, "--output", tmp_path / "run") as running:
        until(lambda: len(namespaces() - before) >= 2, "the lab", 20)
        output, errors = running.communicate(timeout=110)
    done = Ran(running.returncode, output, errors)

    assert done.status in (0, 1), done.stderr
    for word in ("load rest", "/s", "p50", "p99", "CPU %", "seed 7"):
        assert word in done.stdout
    for treatment in ("base", "defer:200us", "fullbusy", "suspend:200us"):
        assert treatment in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "round 2 of 2" in done.stderr
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    until(lambda: namespaces() == before, "the lab has gone")
    holds_every_cell_and_what_is_said_of_them(RunDirectory(tmp_path / "run"))
    shows_what_each_treatment_is_for(RunDirectory(tmp_path / "run"))


def holds_every_cell_and_what_is_said_of_them(directory: RunDirectory) -> None:
    cells, summary = directory.cells(), directory.summary()
    assert summary is not None
    assert len(cells) == 2 * 4 * 3
    assert not any(cell.failed for cell in cells)
    assert all(cell.metrics["requests_per_second"] > 0 for cell in cells if cell.load != "rest")
    assert {each.treatment for each in summary.comparisons} <= {"defer:200us", "fullbusy", "suspend:200us"}
    assert summary.sentences


def shows_what_each_treatment_is_for(directory: RunDirectory) -> None:
    """Who polls under the heavy load, and what busy polling takes at rest: that other work on this machine can move,
    but not turn round."""
    cells = directory.cells()
    heavy = max(directory.config().rates, key=lambda rate: rate or 0)

    def of(treatment: str, metric: str, rate: float | None) -> float:
        return median(each.metrics[metric] for each in cells
                      if each.treatment == treatment and each.asked_per_second == rate)  # fmt: skip

    polled = {
        name: of(name, "server_poll_share", heavy) for name in ("base", "defer:200us", "suspend:200us", "fullbusy")
    }
    assert polled["base"] == polled["defer:200us"] == 0
    assert polled["suspend:200us"] > 0.5, polled
    assert polled["fullbusy"] > 0.5, polled
    rest = {name: of(name, "server_cpu_share", 0) for name in ("base", "suspend:200us", "fullbusy")}
    assert rest["fullbusy"] > 5 * rest["suspend:200us"], rest
