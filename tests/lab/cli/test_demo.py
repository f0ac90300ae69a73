"""Promises of the demo: one table, an answer, a page that opens, and nothing left."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest

from napctl.cli.text.run_brief import warning_count
from napctl.experiment.run_directory import RunDirectory
from napctl.experiment.treatments import PRESETS
from napctl.report.answers import answers
from napctl.report.summary import Run, read_run
from napctl.report.table import loads_of
from tests.lab.helpers import Napctl, Ran, until
from tests.watchdog import MARK, marked_by

pytestmark = pytest.mark.lab
QUICK = ("--rounds", 1, "--seconds", 0.4)
COMPARED = ("--rounds", 3, "--seconds", 0.2)
"""The fewest with which anything is compared."""


def namespaces() -> set[str]:
    """Network namespaces that a process is in or holds open: of those that were started by the tests."""
    found = set()
    for process in (Path(f"/proc/{pid}") for pid in marked_by(os.environ[MARK])):
        for link in (process / "ns/net", *process.glob("fd/*")):
            with suppress(OSError):
                found.add(str(link.readlink()))
    return {name for name in found if name.startswith("net:[")}


@pytest.mark.alone
@pytest.mark.trials
def test_the_demo_measures_five_ways_at_four_loads_and_leaves_a_report_alone(
    napctl: Napctl, tmp_path: Path, trials: Callable[[int, int], int]
) -> None:
    """Compared they are in the long form."""
    before, form = namespaces(), COMPARED if trials(0, 1) else QUICK
    sudo = ("env", "SUDO_UID=12345", "SUDO_GID=23456")

    with napctl.start("demo", *form, "--seed", 7, "--output", tmp_path / "run", under=sudo) as running:
        until(lambda: len(namespaces() - before) >= 2, "the lab")
        output, errors = running.communicate(timeout=110)
    done = Ran(running.returncode, output, errors)

    assert done.status in (0, 1), done.stderr
    until(lambda: namespaces() == before, "the lab has gone")
    directory = RunDirectory(tmp_path / "run")
    belongs_to_who_typed_sudo(directory.path)
    os.chown(directory.path, 0, 0)
    for each in directory.path.rglob("*"):
        os.chown(each, 0, 0)
    is_one_table_and_an_answer(done.stdout, read_run(directory))
    holds_every_cell(directory, compared=form is COMPARED)
    shows_what_each_treatment_is_for(directory)


def test_a_demo_that_is_interrupted_leaves_its_run_to_who_typed_sudo(napctl: Napctl, tmp_path: Path) -> None:
    sudo = ("env", "SUDO_UID=12345", "SUDO_GID=23456")
    with napctl.start("demo", *QUICK, "--output", tmp_path / "run", under=sudo) as running:
        cells = tmp_path / "run" / "cells.jsonl"
        until(lambda: cells.exists() and cells.stat().st_size, "the first cell")
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGINT
    belongs_to_who_typed_sudo(tmp_path / "run")


@pytest.mark.alone
@pytest.mark.long
def test_the_whole_demo_takes_three_minutes_and_its_answer_rests_on_comparisons(napctl: Napctl, tmp_path: Path) -> None:
    start = time.monotonic()
    done = napctl("demo", "--output", tmp_path / "run", timeout_s=400)
    took = time.monotonic() - start

    assert done.status in (0, 1), done.stderr
    run = read_run(RunDirectory(tmp_path / "run"))
    is_one_table_and_an_answer(done.stdout, run)
    assert {each.blocks for each in run.summary.comparisons if each.metric == "latency_p99_us"} == {8}
    assert len(answers(run)) >= 2
    assert took < 180


def belongs_to_who_typed_sudo(path: Path) -> None:
    for each in (path, *path.rglob("*")):
        assert (each.stat().st_uid, each.stat().st_gid) == (12345, 23456), each


def is_one_table_and_an_answer(output: str, run: Run) -> None:
    lines = output.splitlines()
    assert len(lines) <= 28
    assert max(len(line) for line in lines if not line.startswith("/")) <= 80
    loads = [name for name in loads_of(run.cells, run.summary) if name != "rest"]
    assert len(loads) == 3
    assert [line.split()[0] for line in lines[1:16:5]] == loads
    for name in ("interrupts", "suspend 20 µs", "suspend 200 µs", "defer 200 µs", "busy polling"):
        assert sum(f" {name} " in line for line in lines[1:16]) == 3
    assert sum(line.startswith("At rest, CPU: ") for line in lines) == 1
    said = " ".join(output.split())
    assert all(sentence in said for sentence in answers(run))
    assert f"All figures, and {warning_count([run])}: " in said
    page = Path(said.split()[-1])
    assert page.stat().st_size > 10_000
    assert page.read_text().startswith("<!DOCTYPE html>")


def holds_every_cell(directory: RunDirectory, *, compared: bool) -> None:
    cells, summary = directory.cells(), directory.summary()
    assert summary is not None
    rounds = directory.config().rounds
    assert len(cells) == 5 * (3 * rounds + min(rounds, 2))
    assert not any(cell.failed for cell in cells)
    answered = {(cell.treatment, cell.load) for cell in cells if cell.metrics.get("requests_per_second", 0) > 0}
    assert len(answered) >= 5 * 3 - (rounds == 1)  # in some round: other work can hold up a whole one
    named = {*PRESETS["demo"][1:]} if compared else set()
    assert {each.treatment for each in summary.comparisons} == named, "named as published"


def shows_what_each_treatment_is_for(directory: RunDirectory) -> None:
    """Who polls under the heavy load, and what busy polling takes at rest: that other work on this machine can move,
    but not turn round. A suspension that does nothing fails it."""
    cells = directory.cells()
    _, _, heavy, _ = directory.config().rates

    def of(treatment: str, metric: str, rate: float | None) -> float:
        known = [each for each in cells if metric in each.metrics]
        return median(each.metrics[metric] for each in known
                      if each.treatment == treatment and each.asked_per_second == rate)  # fmt: skip

    polled = {name: of(name, "server_poll_share", heavy) for name in PRESETS["demo"]}
    assert polled["base"] == polled["defer:200us"] == 0
    assert polled["suspend:200us"] > 0, polled  # other work makes it less, but not none
    # Where the server waits for its CPU for longer than 20 µs it may find nothing left to poll, in most rounds.
    assert max(each.metrics.get("server_poll_share", 0) for each in cells if each.treatment == "suspend:20us") > 0.1
    assert polled["fullbusy"] > 0.5, polled
    rest = {name: of(name, "server_cpu_share", 0) for name in ("base", "suspend:200us", "fullbusy")}
    assert rest["fullbusy"] > 5 * rest["suspend:200us"], rest
