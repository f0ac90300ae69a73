"""Promises of the loop of an experiment, with a load that tells what it is told to, and treatments that change nothing.

What treatments change, and that it is taken back, is promised in the lab: tests/lab/experiment/test_schedule.py.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from napctl.experiment.run_directory import RunDirectory
from napctl.experiment.schedule import MEASURED_AGAIN, run
from napctl.experiment.treatments import Place, Treatment
from napctl.load.base import Figures, Harmful, Meter, Told
from napctl.load.process import LoadCommand, run_load
from napctl.model.errors import NapctlError
from napctl.model.experiment import Cell, RunConfig
from napctl.report.summary import summarise

LATE = "the load generator was late"
GOOD = Figures(
    seconds=2.0, cpus=4, machine_cpu_share=0.5, elsewhere=0.0, metrics={"cpu_share": 0.25}, sources={}, polls={},
    warnings=(),
)  # fmt: skip


class Script:
    """A load that goes by a list: a warning that it was disturbed, an error, or neither."""

    def __init__(self, *acts: str | NapctlError) -> None:
        self.acts, self.seeds = list(acts), list[tuple[float, int]]()

    def settle(self, seconds: float, meter: Meter) -> None:
        """At once."""

    @contextmanager
    def primed(self) -> Iterator[None]:
        yield

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, meter: Meter) -> Told:
        self.seeds.append((rate, seed))
        act = self.acts.pop(0) if self.acts else ""
        if isinstance(act, NapctlError):
            raise act
        metrics = {"requests_per_second": 100.0}
        return Told(
            metrics=metrics, latency=(), figures=GOOD, warnings=(act,) if act else (), disturbed=bool(act), errors=4,
            load_seconds=1.0,
        )  # fmt: skip


def cells(tmp_path: Path, load: Script, names: Sequence[str] = ("base",), **asked: Any) -> tuple[Cell, ...]:
    repeats = asked.pop("repeats", 0)
    config = RunConfig(
        napctl="0", name="n", made_unix_ns=0, treatments=tuple(names), seconds=1, warmup_seconds=0, settle_seconds=0,
        seed=7, rounds=asked.get("rounds", 1), rates=asked.get("rates", (100.0,)),
    )  # fmt: skip
    directory = RunDirectory(tmp_path / "run")
    directory.create(config, {})
    treatments = [Treatment(name=name) for name in names]
    nothing = cast("Any", None)
    run(config, treatments, directory, cast("Place", nothing), load, nothing, lambda *_: None, repeats=repeats)
    return directory.cells()


def test_a_disturbed_cell_is_measured_again_and_says_so(tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, Script(LATE), repeats=1)
    assert cell.warnings == (MEASURED_AGAIN,)


def test_a_repetition_that_fails_leaves_the_first_and_its_warning(tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, Script(LATE, NapctlError("no answer")), repeats=1)
    assert (cell.failed, cell.warnings) == ("", (LATE,))
    assert cell.metrics["requests_per_second"] == 100


def test_no_more_cells_are_measured_again_than_may_be(tmp_path: Path) -> None:
    found = cells(tmp_path, Script(*[LATE] * 9), rounds=4, repeats=2)
    assert sorted(each.warnings for each in found) == [(LATE,), (LATE,), (LATE, MEASURED_AGAIN), (LATE, MEASURED_AGAIN)]


def test_all_treatments_of_a_block_get_the_same_load(tmp_path: Path) -> None:
    load = Script()
    cells(tmp_path, load, ("base", "base#2"), rounds=3, rates=(100.0, 0.0))
    assert sorted(load.seeds) == sorted([(rate, 7 + number) for rate in (100, 0) for number in (1, 2, 3)] * 2)


def test_cpu_time_of_the_whole_span_is_shared_by_the_requests_that_were_made_in_it(tmp_path: Path) -> None:
    """Requests for 1 s of 2: 100 of them, for a quarter of four CPUs during 2 s."""
    (cell,) = cells(tmp_path, Script())
    assert cell.metrics["cpu_us_per_request"] == pytest.approx(0.25 * 4 * 2 * 1e6 / 100)
    assert cell.metrics["errors_per_second"] == 4


def test_what_changes_nothing_is_not_blamed_for_a_limit_that_was_passed(tmp_path: Path) -> None:
    first, second = cells(tmp_path, Script(Harmful("wait_p99_us was 9, the limit is 5")), rounds=2)
    assert first.failed == "wait_p99_us was 9, the limit is 5, and base changes nothing: it is too low"
    assert (first.harmful, second.failed) == (False, "")


LOADS = Path(__file__).parents[1] / "load" / "outputs"


class Recorded(Script):
    """A load tool that prints what one of its kind printed once."""

    def __init__(self, output: Path, tool: str) -> None:
        super().__init__()
        self.command = LoadCommand.of(f"cat {output}", adapter=tool)

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, meter: Meter) -> Told:
        reading = run_load(self.command, rate=rate, seconds=seconds, seed=seed, limit_seconds=9, raw_path=raw)
        return Told(metrics=reading.metrics(), latency=(), figures=GOOD, warnings=reading.warnings)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("tool", "output", "compared"),
    [
        ("wrk", "wrk-latency", {"requests_per_second", "latency_p99_us"}),
        ("wrk", "wrk-zero-rate", set()),
        ("wrk2", "wrk2-too-short", set()),
        ("iperf3", "iperf3-bidir-same-keys", set()),
        ("iperf3", "iperf3-trailing-error", set()),
        ("memtier_benchmark", "memtier-cluster-eval", set()),
        ("sockperf", "sockperf-one-message", set()),
        ("sockperf", "sockperf-under-load-udp", {"requests_per_second", "latency_p99_us"}),
    ],
)
def test_a_figure_that_contradicts_another_or_is_of_nothing_is_never_compared(
    tmp_path: Path, tool: str, output: str, compared: set[str]
) -> None:
    measured = cells(tmp_path, Recorded(LOADS / f"{output}.txt", tool), ("base", "base#2"), rounds=3)
    assert all(tool in each.failed for each in measured) or compared
    told = {each.metric for each in summarise(measured, "base", seed=1).comparisons}
    wanted = {"requests_per_second", "bits_per_second", "latency_p99_us", "latency_p999_us"}
    assert told & wanted == compared
