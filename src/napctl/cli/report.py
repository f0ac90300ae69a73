"""napctl report: what a run of compare found."""

from pathlib import Path
from typing import Any

import click

from napctl.cli.options import json_option, verbose_option
from napctl.cli.terminal import WIDTH, echo, echo_json, note
from napctl.cli.text.run_brief import show_brief, warning_count
from napctl.cli.text.run_summary import show, write_page
from napctl.cli.text.table import paragraph
from napctl.experiment.run_directory import RunDirectory
from napctl.model.energy import Energy
from napctl.model.errors import NapctlError
from napctl.model.experiment import RunConfig, Summary
from napctl.model.machine import SCHEMA
from napctl.model.value import Value
from napctl.report.page.figures import named
from napctl.report.summary import Run, read_run, sum_up
from napctl.report.tabular import write_csv, write_parquet

__all__ = ["present"]


class Reported(Value, frozen=True, kw_only=True):
    """One run, in what `report --json` prints."""

    path: str
    config: RunConfig
    machine: Any
    cells: int
    """How many there are; they stand in `cells.jsonl`, and in long form in what --csv writes."""
    failed: int
    summary: Summary
    baseline: Energy | None
    """What the machine used before the first cell, or why that is not known; null: nobody tried to measure it."""


class ReportedRuns(Value, frozen=True, kw_only=True):
    """What `report --json` prints."""

    schema: int = SCHEMA
    runs: tuple[Reported, ...]
    page: str
    """Where the page was written."""


@click.command(
    epilog="\b\nExamples:\n  napctl report monday\n  napctl report monday tuesday --html kernels.html\n"
    "  napctl report monday --csv monday.csv --parquet monday.parquet"
)
@click.argument("paths", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@click.option("--html", metavar="FILE", help="Where to write the page (default: report.html in RUN; of several runs "
              "comparison.html in the last).")  # fmt: skip
@click.option("--csv", "csv_file", metavar="FILE", help="Also write every figure of every cell as CSV.")
@click.option("--parquet", "parquet_file", metavar="FILE", help="The same as Parquet; needs pyarrow.")
@verbose_option
@json_option("One JSON object")
def report(
    paths: tuple[str, ...],
    html: str | None,
    csv_file: str | None,
    parquet_file: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Print what a run of compare found, and write it as one HTML page that needs nothing else.

    RUN is the directory that compare made, also of a run that was interrupted. Several runs are set beside each other,
    such as yesterday's kernel and today's: the same treatments side by side, and by what the machines differ.
    """
    directories = [RunDirectory(path) for path in dict.fromkeys(paths)]
    runs = [read_run(directory) for directory in directories]
    names = _names(directories, runs)
    if not as_json:
        _show(runs, names, verbose=verbose)
    _export(list(zip(names, runs, strict=True)), csv_file, parquet_file)
    last = directories[-1]
    page = Path(html) if html else last.report if len(runs) == 1 else last.path / "comparison.html"
    write_page(page, runs, names)
    if as_json:
        reported = tuple(_reported(directory, run) for directory, run in zip(directories, runs, strict=True))
        echo_json(ReportedRuns(runs=reported, page=str(page)))
    else:
        _name_page(page, runs)


def _show(runs: list[Run], names: list[str], *, verbose: bool) -> None:
    if verbose:
        show(named(runs, names))
        return
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        if len(runs) > 1:
            if number:
                echo()
            paragraph(f"{name}:")
        show_brief(run)


def _name_page(page: Path, runs: list[Run]) -> None:
    line = f"All figures, and {warning_count(runs)}: {page}"
    for each in [line] if len(line) <= WIDTH else line.rsplit(" ", 1):
        echo(each)


def present(directory: RunDirectory, *, verbose: bool, as_json: bool) -> int:
    """Show a run that has just been summed up, and write its page. 1 if a treatment was worse in anything, else 0.

    Raises what reading and writing raise (napctl.experiment.run_directory), and NapctlError if every cell failed.
    """
    if directory.summary() is None:
        sum_up(directory)
    run = read_run(directory)
    names = _names([directory], [run])
    if as_json:
        echo_json(run.summary)
    else:
        _show([run], names, verbose=verbose)
    write_page(directory.report, [run], names)
    if not as_json:
        _name_page(directory.report, [run])
    if run.cells and all(cell.failed for cell in run.cells):
        raise NapctlError(f"every cell failed; the first: {run.cells[0].failed}")
    return int(any(each.judgement == "worse" for each in run.summary.comparisons))


def _names(directories: list[RunDirectory], runs: list[Run]) -> list[str]:
    """As their configurations call them, or their directories if those do not differ."""
    own = [run.config.name for run in runs]
    if len(runs) == 1:
        return [own[0] or directories[0].path.resolve().name]
    return own if all(own) and len(set(own)) == len(own) else [str(each.path) for each in directories]


def _export(runs: list[tuple[str, Run]], csv_file: str | None, parquet_file: str | None) -> None:
    if csv_file:
        write_csv(csv_file, runs)
        note(f"written: {csv_file}")
    if parquet_file:
        write_parquet(parquet_file, runs)
        note(f"written: {parquet_file}")


def _reported(directory: RunDirectory, run: Run) -> Reported:
    return Reported(
        path=str(directory.path),
        config=run.config,
        machine=run.machine,
        cells=len(run.cells),
        failed=sum(bool(cell.failed) for cell in run.cells),
        summary=run.summary,
        baseline=run.baseline,
    )
