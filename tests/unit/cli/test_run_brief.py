"""Promises of a run at one look: the demo's 28 lines of 80 columns, changes only where there are some, and warnings."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.cli.report import present
from napctl.cli.text.run_brief import show_brief, warning_count
from napctl.report.matrix import SIGNS, brief_change, matrix
from napctl.report.summary import Run
from tests.unit import runs


@pytest.fixture(scope="module")
def demo() -> Run:
    return runs.demo()


def shown(run: Run, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show_brief(run)
    return capsys.readouterr().out.splitlines()


def test_the_demo_takes_28_lines_of_80_columns(demo: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(demo, capsys)
    assert len(lines) + len(("page", "path")) <= 28
    assert max(map(len, lines)) <= 80
    assert "At rest, CPU: busy polling 100 %, the others 1.0 to 1.3 % (no verdict)." in lines
    names = ("interrupts", "suspend 20 µs", "suspend 200 µs", "defer 200 µs", "busy polling")
    assert all(sum(f" {name} " in line for line in lines[1:16]) == 3 for name in names)


def test_a_change_is_shown_exactly_where_a_comparison_found_one(demo: Run, capsys: pytest.CaptureFixture[str]) -> None:
    table = "\n".join(shown(demo, capsys)[1:16])
    kinds = [entry.kind for load in matrix(demo) for line in load.lines for entry in line.entries]
    assert kinds.count("better") > 5
    assert kinds.count("worse") > 2
    assert all(table.count(SIGNS[kind]) == kinds.count(kind) for kind in ("better", "worse", "different"))


def test_requests_are_shown_where_they_are_a_result(demo: Run) -> None:
    columns = {load.load: [metric.name for metric in load.metrics] for load in matrix(demo)}
    assert [load for load, names in columns.items() if "requests_per_second" in names] == ["max"]


def test_a_treatment_that_failed_says_why_and_names_that_leave_no_room_get_lines_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = shown(runs.run(), capsys)
    assert any(f"{runs.FAILED} failed in 6 of 6 rounds: {runs.WHY}"[:78] in line for line in lines)
    run = runs.run(treatments=("base", "defer:200us"))
    long = "a-treatment-" * 6
    cells = tuple(replace(each, treatment=long) if each.treatment == "defer:200us" else each for each in run.cells)
    asked = replace(run.config, treatments=("base", long))
    lines = shown(replace(run, config=asked, cells=cells, summary=runs.summary(asked, cells)), capsys)
    assert long in lines
    assert max(map(len, lines[:16])) <= 80


def test_the_end_names_the_page_and_how_many_warnings_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.run()
    directory = runs.written(tmp_path / "run", run)
    present(directory, verbose=False, as_json=False)
    brief = capsys.readouterr().out
    assert f"All figures, and {len(run.summary.warnings)} warnings:" in brief
    assert brief.splitlines()[-1].endswith("report.html")
    assert not any(sentence[:40] in brief for sentence in run.summary.sentences[:3])
    present(directory, verbose=True, as_json=False)
    assert run.summary.sentences[0][:40] in " ".join(capsys.readouterr().out.split())
    assert warning_count([replace(run, summary=replace(run.summary, warnings=()))]) == "no warnings"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0.38, "−62%"),
        (1.04, "+4%"),
        (2.9, "×2.9"),
        (31.0, "×31.0"),
        (0.9996, "−0.04%"),
        (0.001, "−99.9%"),
        (0.0, "−100%"),
    ],
)
def test_a_change_is_short_and_never_none_for_what_differs(ratio: float, text: str) -> None:
    assert brief_change(ratio) == text
    assert brief_change(1.0, differs=False) == "±0%"
