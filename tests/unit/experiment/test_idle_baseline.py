"""Promises of the idle baseline: when it is measured, what is said of it, and where it is shown."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.cli.text.run_summary import show
from napctl.experiment.idle_baseline import IDLE_SECONDS, QUIET, baseline_doubt, baseline_sentence, idle_baseline
from napctl.experiment.run_directory import RunDirectory
from napctl.model.energy import Energy, Kind, KindEnergy
from napctl.model.errors import BadInput
from napctl.observe.energy import EnergyMeter
from napctl.report.page.figures import named
from napctl.report.page.idle_table import above_idle
from napctl.report.page.page import page_of
from napctl.report.summary import Run, read_run
from tests.strategies import examples
from tests.unit import runs
from tests.unit.energy_trees import GUEST, INTEL, Tree
from tests.unit.report.test_page import checked

pytestmark = pytest.mark.heavy

RUN = runs.run(rounds=3)
SOURCE = "RAPL package-0"
"""As the cells of `runs` name it."""


class Meter:
    """A CellMeter's half for energy, over a tree; `use` happens while it measures."""

    def __init__(self, tree: Tree, use: Callable[[], object] = lambda: None):
        self.asked: list[float] = []
        self._tree, self._use = tree, use
        with EnergyMeter(tree.roots) as meter:
            self.why_no_energy = meter.why

    def idle(self, seconds: float) -> Energy:
        self.asked.append(seconds)
        with EnergyMeter(self._tree.roots) as meter:
            return meter.idle(0.3 if seconds else 0, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self._use()
        time.sleep(seconds)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "tree")
    tree.cpu(INTEL)
    return tree


def kind(name: Kind, watts: float | None, source: str = SOURCE, why: str = "") -> KindEnergy:
    joules = None if watts is None else 2 * watts
    return KindEnergy(kind=name, source=source, joules=joules, watts=watts, why=why, zones=())


def energy(*kinds: KindEnergy, **changes: Any) -> Energy:
    told: dict[str, Any] = {"seconds": 2.0, "cpu_share": 0.02, "kinds": kinds}
    return Energy(**(told | changes))


IDLE = energy(kind("package", 42.0), kind("core", 7.0), kind("dram", 2.13))


# Measuring


def test_it_is_measured_while_nothing_is_asked_and_said_to_take_time(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", 1_000_000)
    tree.zone("intel-rapl:0:0", "dram", 1_000_000)
    told: list[str] = []

    def use() -> None:
        tree.zone("intel-rapl:0", "package-0", 4_000_000)
        tree.zone("intel-rapl:0:0", "dram", 1_300_000)

    meter = Meter(tree, use)
    found = idle_baseline(RUN.config, meter, told.append)

    assert meter.asked == [IDLE_SECONDS]
    assert [f"{IDLE_SECONDS:g} s" in text for text in told] == [True]
    assert {each.kind: each.joules for each in found.kinds} == pytest.approx({"package": 3, "dram": 0.3})
    said = baseline_sentence(found)
    assert said.startswith("idle: package ")
    assert "(powercap)" in said
    assert said.endswith("busy meanwhile")


def test_where_nothing_can_be_measured_no_time_is_lost_and_the_reason_is_kept(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.cpu(GUEST)
    told: list[str] = []
    meter = Meter(tree)

    found = idle_baseline(RUN.config, meter, told.append)

    assert (meter.asked, told) == ([0], [])
    assert baseline_sentence(found).startswith("energy: not measurable here: ")
    assert not baseline_doubt(found)


def test_under_live_traffic_there_is_no_baseline_and_it_says_why(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", 1_000_000)
    meter = Meter(tree)
    found = idle_baseline(runs.config(source="live"), meter, lambda _: None)
    assert meter.asked == []
    assert found.kinds == ()
    assert baseline_sentence(found) == "energy: no idle baseline: the traffic is there all the time"


# In words


def test_it_is_one_line() -> None:
    assert baseline_sentence(IDLE) == f"idle: package 42.0 W, DRAM 2.13 W ({SOURCE}); CPU 2 % busy meanwhile"


def test_sources_are_named_apart_where_they_differ_and_a_gap_is_no_0() -> None:
    found = energy(kind("package", 42.0, "perf"), kind("platform", 90.0, "IPMI"), kind("dram", None, why="dram: EIO"))
    assert baseline_sentence(found) == (
        "idle: package 42.0 W (perf), platform 90.0 W (IPMI); dram: no figure: dram: EIO; CPU 2 % busy meanwhile"
    )
    assert "0" not in baseline_sentence(energy(kind("package", None, why="it stood still"), cpu_share=None))


@pytest.mark.parametrize(("cpu_share", "doubtful"), [(None, False), (QUIET, False), (QUIET + 0.01, True)])
def test_a_machine_that_was_busy_gives_a_doubtful_baseline(cpu_share: float | None, doubtful: bool) -> None:
    assert ("doubtful" in baseline_doubt(replace(IDLE, cpu_share=cpu_share))) == doubtful


KINDS: st.SearchStrategy[Kind] = st.sampled_from(("package", "core", "uncore", "dram", "psys", "platform"))
ENERGIES = st.builds(
    energy,
    cpu_share=st.none() | st.floats(0, 1),
    why=st.just("") | st.text(max_size=5),
    kinds=st.lists(
        st.builds(kind, KINDS, st.none() | st.floats(0, 1e5), st.text(max_size=5)),
        max_size=6, unique_by=lambda each: each.kind,
    ).map(tuple),
)  # fmt: skip


@settings(max_examples=examples(6, 25))
@given(ENERGIES)
def test_whatever_was_measured_it_is_told_and_drawn(found: Energy) -> None:
    assert baseline_sentence(found).startswith(("idle: ", "energy: "))
    checked(page_of([replace(RUN, baseline=found)]))


# On disk


def test_it_is_part_of_the_run_and_older_runs_have_none(tmp_path: Path) -> None:
    run = replace(RUN, baseline=IDLE)
    assert read_run(runs.written(tmp_path / "new", run)) == run
    assert json.loads((tmp_path / "new/baseline.json").read_text())["kinds"][0]["watts"] == 42
    old = runs.written(tmp_path / "old", RUN)
    assert old.baseline() is None
    assert read_run(old).baseline is None


def test_a_malformed_one_is_named(tmp_path: Path) -> None:
    directory = runs.written(tmp_path / "run", RUN)
    (directory.path / "baseline.json").write_text('{"seconds": "two"}')
    with pytest.raises(BadInput, match=r"baseline\.json: malformed"):
        read_run(RunDirectory(directory.path))


# Where it is shown


def said_of(run: Run, capsys: pytest.CaptureFixture[str]) -> str:
    show(named([run], ["a run"]))
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    return " ".join(out.split())


def test_the_report_has_it_in_one_line_with_its_doubt(capsys: pytest.CaptureFixture[str]) -> None:
    said = said_of(replace(RUN, baseline=IDLE), capsys)
    assert baseline_sentence(IDLE) in said
    assert "doubtful" not in said
    assert "CPUs were 40 % busy" in said_of(replace(RUN, baseline=replace(IDLE, cpu_share=0.4)), capsys)
    assert "idle:" not in said_of(RUN, capsys)


def test_the_page_has_it_and_what_is_above_it_beside_the_watts() -> None:
    run = replace(RUN, baseline=IDLE)
    base = next(each for each in run.summary.estimates
                if (each.treatment, each.load, each.metric) == ("base", "max", "package_watts"))  # fmt: skip
    table = above_idle(named([run], ["a run"])[0])

    assert table is not None
    assert table.head == ("case", "package, W", "above idle, W", "DRAM, W", "above idle, W")
    assert [cell.text for cell in table.rows[0]] == ["idle baseline", "42.0", "–", "2.13", "–"]
    row = next(row for row in table.rows if row[0].text == "base, max")
    assert [cell.text for cell in row[1:]] == [f"{base.median:.1f}", f"{base.median - 42:.1f}", "–", "–"]
    assert runs.WITHOUT_ENERGY not in " ".join(row[0].text for row in table.rows), "it has no figure"
    said = checked(page_of([run])).text.partition("Energy Medians")[2].partition("All figures")[0]
    assert baseline_sentence(IDLE) in said
    assert all(cell.text in said for row in table.rows for cell in row)
    assert "doubtful" in checked(page_of([replace(run, baseline=replace(IDLE, cpu_share=0.4))])).text


def test_less_than_idle_is_negative_and_another_source_is_not_compared() -> None:
    run = replace(RUN, baseline=energy(kind("package", 1000.0)))
    table = above_idle(named([run], ["a run"])[0])
    assert table is not None
    assert all(row[2].text.startswith("−") for row in table.rows[1:])
    other = replace(RUN, baseline=energy(kind("package", 42.0, "IPMI")))
    table = above_idle(named([other], ["a run"])[0])
    assert table is not None
    assert {row[2].text for row in table.rows} == {"–"}


def test_a_page_of_a_run_without_energy_says_why_and_one_of_an_old_run_nothing() -> None:
    without = replace(runs.run(rounds=3, energy=False), baseline=energy(cpu_share=None, why="not measurable here: x"))
    said = checked(page_of([without])).text
    assert "Energy was not measured" in said
    assert "energy: not measurable here: x" in said
    assert "Before the first cell" not in checked(page_of([RUN])).text


def test_of_two_runs_each_has_its_own() -> None:
    other = replace(RUN, baseline=energy(kind("package", 50.0)))
    found = checked(page_of([replace(RUN, baseline=IDLE), other], ["monday", "tuesday"]))
    assert "package 42.0 W" in found.text
    assert "package 50.0 W" in found.text
