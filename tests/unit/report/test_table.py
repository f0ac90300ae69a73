"""Promises of a run's table, its exports and `napctl report`."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from pyarrow import parquet

from napctl.cli.report import present
from napctl.experiment.run_directory import RunDirectory
from napctl.model.errors import Unsupported
from napctl.model.experiment import Estimate, Summary
from napctl.model.units import figure
from napctl.model.value import from_json
from napctl.report import tabular
from napctl.report.table import (
    change,
    loads_of,
    metric_of,
    pareto,
    readable,
    rows,
    short,
    shown_metrics,
    spread_text,
    treatments_of,
)
from napctl.report.tabular import COLUMNS, csv_text, long_rows, write_parquet
from tests.unit import runs

PROGRAM = Path(sys.executable).with_name("napctl")
RUN = runs.run()


def napctl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_rows_stand_by_load_then_treatment_in_their_order() -> None:
    found = [(row.load, row.treatment) for row in rows(RUN.config, RUN.cells, RUN.summary)]
    assert found == [(load, treatment) for load in ("20,000/s", "60,000/s", "max") for treatment in runs.TREATMENTS]
    assert treatments_of(RUN.config, RUN.cells, RUN.summary)[0] == "base"
    assert loads_of(RUN.cells, RUN.summary)[-1] == "max"


def test_a_row_of_a_failed_treatment_says_why() -> None:
    failed = [row for row in rows(RUN.config, RUN.cells, RUN.summary) if row.failed]
    assert {row.treatment for row in failed} == {runs.FAILED}
    assert all(row.failures[0].why == runs.WHY and row.failures[0].cells == row.cells == 6 for row in failed)


def test_a_treatment_that_failed_once_has_figures_and_its_failure() -> None:
    cells = tuple(
        replace(cell, failed="too late", metrics={}) if (cell.treatment, cell.round) == ("base", 2) else cell
        for cell in RUN.cells
    )
    first = rows(RUN.config, cells, runs.summary(RUN.config, cells))[0]
    assert (first.treatment, first.failed, first.failures[0].cells) == ("base", False, 1)


def test_what_was_measured_of_the_server_alone_stands_in_for_the_machine() -> None:
    cells = tuple(
        replace(cell, metrics={name: value for name, value in cell.metrics.items()
                               if name not in ("cpu_share", "cpu_us_per_request")})
        for cell in RUN.cells
    )  # fmt: skip
    measured = rows(RUN.config, cells, runs.summary(RUN.config, cells))
    assert shown_metrics(measured)[-2:] == ["server_cpu_share", "server_cpu_us_per_request"]
    assert shown_metrics([])[-2:] == ["cpu_share", "cpu_us_per_request"]


POINT = st.tuples(st.sampled_from([0.0, 1.0, 2.0, 3.0]), st.sampled_from([0.0, 1.0, 2.0, 3.0]))


@given(st.dictionaries(st.text(max_size=3), POINT))
def test_the_front_holds_exactly_the_points_that_none_beats(points: dict[str, tuple[float, float]]) -> None:
    front = pareto(points)
    for name, (x, y) in points.items():
        beaten = any(a <= x and b <= y and (a < x or b < y) for a, b in points.values())
        assert (name in front) is not beaten


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_figure_is_short(value: float) -> None:
    assert len(figure(value)) <= 13
    assert "nan" not in figure(value)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.0, "±0.0 %"), (0.9996, "±0.0 %"), (0.877, "−12.3 %"), (1.04, "+4.0 %"), (3.2, "3.20 times"), (0.0, "−100.0 %")],
)
def test_a_ratio_is_told_as_a_change(ratio: float, text: str) -> None:
    assert change(ratio) == text


def test_little_energy_is_told_in_its_unit() -> None:
    joules = metric_of("joules_per_request")
    assert [readable(joules, [value]).unit for value in (2.0, 0.004, 0.00001)] == ["J", "mJ", "µJ"]


def ranged(low: float, high: float) -> str:
    found = Estimate(treatment="", load="", metric="", median=low, low=low, high=high, rounds=6)
    return spread_text(found, metric_of("latency_p50_us"))


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (162, 290, "162-290"),
        (97, 1052, "97-1050"),
        (2.4, 2400, "2.4-2400"),
        (1000, 5100, "1.0k-5.1k"),
        (185_000, 1_400_000, "185k-1400k"),
        (0, 1400, "0-1.4k"),
        (0, 0.001, "0.00"),
        (0, 0, "0"),
        (100, 100.2, "100"),
    ],
)
def test_in_the_terminal_both_ends_of_an_interval_have_one_unit(low: float, high: float, text: str) -> None:
    assert ranged(low, high) == text


def test_what_was_not_measured_has_no_interval() -> None:
    assert spread_text(None, metric_of("latency_p50_us")) == ""


def told(text: str) -> float:
    """A short figure as a number."""
    return float(text.rstrip("kMG")) * {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1.0)


SIZES = st.floats(-3, 11.9).map(lambda exponent: 10**exponent)
AT_A_UNIT = st.builds(lambda size, off: size * off, st.sampled_from([1.0, 1e3, 1e6, 1e9]), st.floats(0.999, 1.001))
FIGURES = st.one_of(st.just(0.0), SIZES, AT_A_UNIT)


@given(FIGURES, FIGURES)
@example(999.4999999999999, 999.5)
@example(999.5, 9995)
def test_each_end_of_a_range_is_read_right_alone_and_with_the_unit_of_the_other(one: float, other: float) -> None:
    low, high = sorted((one, other))
    ends = ranged(low, high).split("-")
    assert told(ends[0]) == pytest.approx(low, rel=0.06, abs=0.006)
    assert told(ends[-1]) == pytest.approx(high, rel=0.06, abs=0.006)
    assert len({end.lstrip("0123456789.") for end in ends if end != "0"}) <= 1
    assert len(ends) == 1 or told(ends[0]) < told(ends[1])


@given(FIGURES, st.floats(1.13, 1000))
def test_ends_that_differ_by_more_than_rounding_are_two_figures(low: float, ratio: float) -> None:
    assert ranged(low, low * ratio + 0.02).count("-") == 1


@given(st.floats(0, 9e11))
def test_a_short_figure_has_at_most_four_characters_and_is_right_within_its_last_digit(value: float) -> None:
    text = short(value)
    assert len(text) <= 4
    assert abs(told(text) - value) <= max(0.06 * value, 0.006)


# Exports


def test_csv_has_a_row_for_each_cell_and_metric_and_one_for_each_failed_cell() -> None:
    found = list(csv.DictReader(io.StringIO(csv_text([("a run", RUN)]), newline="")))
    assert len(found) == sum(max(1, len(cell.metrics)) for cell in RUN.cells)
    assert tuple(found[0]) == tuple(COLUMNS)
    failed = [row for row in found if row["failed"]]
    assert {(row["treatment"], row["metric"], row["value"]) for row in failed} == {(runs.FAILED, "", "")}
    one = next(row for row in found if row["metric"] == "latency_p99_us")
    cell = next(cell for cell in RUN.cells if cell.position == int(one["position"]))
    assert float(one["value"]) == cell.metrics["latency_p99_us"]
    assert (one["unit"], one["source"], one["run"]) == ("µs", "mutilate", "a run")


def test_parquet_holds_the_same_as_csv(tmp_path: Path) -> None:
    write_parquet(tmp_path / "file", [("a", RUN)])
    assert parquet.read_table(tmp_path / "file").to_pylist() == list(long_rows([("a", RUN)]))


def test_without_pyarrow_it_is_one_line_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unsupported, match=r"napctl\[parquet\]"):
        tabular.write_parquet(tmp_path / "file", [("a", RUN)])
    assert not (tmp_path / "file").exists()


# The command


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.written(tmp_path_factory.mktemp("runs") / "one", RUN).path


def test_report_prints_table_sentences_and_where_the_page_is_in_80_columns(directory: Path) -> None:
    done = napctl("report", directory, "--verbose")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    for load in ("20,000/s", "60,000/s", "max"):
        assert f"load {load}" in done.stdout
    said = " ".join(done.stdout.split())
    assert all(" ".join(sentence.split()) in said for sentence in RUN.summary.sentences)
    assert f"failed in 6 of 6 rounds: {runs.WHY}" in said
    assert done.stdout.splitlines()[-1] == str(directory / "report.html")
    assert (directory / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_report_writes_where_it_is_told_to(directory: Path, tmp_path: Path) -> None:
    names = ("page.html", "figures.csv", "figures.parquet")
    page, figures, columns = (tmp_path / name for name in names)
    done = napctl("report", directory, "--html", page, "--csv", figures, "--parquet", columns, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["schema"], told["page"]) == (0, 1, str(page))
    assert told["runs"][0]["cells"] == len(RUN.cells)
    assert told["runs"][0]["summary"]["sentences"] == list(RUN.summary.sentences)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_two_runs_stand_beside_each_other(directory: Path, tmp_path: Path) -> None:
    other = runs.written(tmp_path / "two", runs.run("today", slower=1.3)).path
    done = napctl("report", directory, other, "--verbose")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    assert "base · memcached" in done.stdout
    assert "base · today" in done.stdout
    assert "Between the runs" in (other / "comparison.html").read_text()


def test_a_range_that_does_not_fit_is_broken_behind_its_hyphen_and_never_amid_a_number(tmp_path: Path) -> None:
    slow = runs.run("slow", slower=23)
    cells = [
        replace(each, metrics={n: v * (1 + each.round / 3) for n, v in each.metrics.items()}) for each in slow.cells
    ]
    slow = replace(slow, cells=tuple(cells), summary=runs.summary(slow.config, cells))
    done = napctl("report", runs.written(tmp_path / "slow", slow).path, "--verbose")
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    words = [
        word
        for word in done.stdout.partition("\n\nMedians")[0].split()
        if re.match(r"[\d.]+[kMG]?-|[\d.]+[kMG]?$", word)
    ]
    assert any(word.endswith("-") for word in words), "the table is too wide"
    assert all(re.fullmatch(r"[\d.]+[kMG]?(-([\d.]+[kMG]?)?)?", word) for word in words)
    assert not {"k", "M"} & set(done.stdout.split())


def test_a_mistake_is_one_line(directory: Path, tmp_path: Path) -> None:
    for arguments, status in (
        ((tmp_path,), 2),
        ((tmp_path / "none",), 2),
        ((), 2),
        ((directory, "--html", tmp_path), 2),
        ((directory, "--csv", tmp_path / "no" / "such"), 2),
    ):
        done = napctl("report", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (status, 1), done
        assert done.stderr.startswith("napctl: ")


def test_a_name_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    treatments = ("base", "\x1b[2J[red]\u202e")
    asked = runs.config("\x1b]0;title\x07", treatments=treatments, rates=(0.0,))
    cells = runs.cells(asked)
    wild = replace(runs.run(), config=asked, cells=cells, summary=Summary(
        estimates=(), comparisons=(), bounds=(), warnings=("\x1b[31m",), sentences=("\x9b31m",)))  # fmt: skip
    done = napctl("report", runs.written(tmp_path / "run", wild).path)
    assert done.returncode == 0, done.stderr
    assert all(letter.isprintable() or letter == "\n" for letter in done.stdout)


def test_an_experiment_that_ends_is_presented_and_its_status_tells_what_got_worse(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert present(RunDirectory(directory), verbose=False, as_json=False) == 1
    assert capsys.readouterr().out.splitlines()[-1] == str(directory / "report.html")
    harmless = replace(RUN, summary=replace(RUN.summary, comparisons=()))
    other = runs.written(tmp_path / "run", harmless)
    assert present(other, verbose=False, as_json=True) == 0
    assert from_json(capsys.readouterr().out, Summary) == harmless.summary
    assert other.report.exists()
