"""Promises of the demo: one table, sentences, a page, and nothing left."""

from contextlib import suppress
from pathlib import Path

import pytest

from napctl.measure.rundir import RunDirectory
from tests.lab.helpers import Napctl, until

pytestmark = pytest.mark.lab
QUICK = ("--rounds", 2, "--seconds", 0.5)


def namespaces() -> set[str]:
    """Network namespaces that a process is in or holds open."""
    found = set()
    for link in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/proc").glob("[0-9]*/fd/*")):
        with suppress(OSError):
            found.add(str(link.readlink()))
    return {name for name in found if name.startswith("net:[")}


def test_the_demo_compares_four_treatments_at_three_loads_and_leaves_a_report_alone(
    napctl: Napctl, tmp_path: Path
) -> None:
    before = namespaces()

    done = napctl("demo", *QUICK, "--seed", 7, "--output", tmp_path / "run", timeout_s=110)

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


def holds_every_cell_and_what_is_said_of_them(directory: RunDirectory) -> None:
    cells, summary = directory.cells(), directory.summary()
    assert summary is not None
    assert len(cells) == 2 * 4 * 3
    assert not any(cell.failed for cell in cells)
    assert all(cell.metrics["requests_per_second"] > 0 for cell in cells if cell.load != "rest")
    assert {each.treatment for each in summary.comparisons} <= {"defer:200us", "fullbusy", "suspend:200us"}
    assert summary.sentences
