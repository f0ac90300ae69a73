"""A run in the terminal: the table, then what may be said of it; and the page that is written beside it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from napctl.cli.terminal import echo, width
from napctl.cli.text.table import GAP, paragraph, print_table
from napctl.experiment.idle_baseline import baseline_doubt, baseline_sentence
from napctl.experiment.run_directory import write_bytes
from napctl.model.metrics import Metric
from napctl.report.page.figures import Named, all_loads, all_rows, all_series, unit_for
from napctl.report.summary import Run
from napctl.report.table import failure_text, heading, short_text, shown_metrics, spread_text

__all__ = ["show", "write_page"]


FAILED = "failed"


def write_page(path: Path, runs: Sequence[Run], names: Sequence[str]) -> None:
    """The page of these runs."""
    from napctl.report.page.page import page_of  # noqa: PLC0415 - Jinja2

    write_bytes(path, page_of(runs, names).encode())


INDENT = 2


def show(runs: list[Named]) -> None:
    """Print it."""
    for each in runs:
        config = each.run.config
        against = f"reference {config.treatments[0]}, " if config.treatments else ""
        paragraph(f"{each.name}: {against}{config.rounds} rounds of {config.seconds:g} s, seed {config.seed}")
    metrics = [unit_for(name, runs) for name in shown_metrics(all_rows(runs))]
    for load in all_loads(runs):
        echo("")
        _show_load(load, runs, metrics)
    if any(each.rows for each in runs):
        echo("")
        paragraph("Medians over rounds; below them their 95 % interval. –: not measured. k: thousand.")
    for each in runs:
        _show_idle(each, several=len(runs) > 1)
    for each in runs:
        _show_words(each, several=len(runs) > 1)


def _show_load(load: str, runs: list[Named], metrics: list[Metric]) -> None:
    echo(f"load {load}")
    columns = ("case", *(_head(metric) for metric in metrics))
    rows: list[tuple[str, ...]] = []
    notes = []
    for series in all_series(runs):
        row = runs[series.run].rows.get((load, series.treatment))
        if row is None:
            continue
        notes += [failure_text(series.label, failure, row.cells) for failure in row.failures]
        figures = [row.estimates.get(metric.name) for metric in metrics]
        medians = [short_text(found, metric) for found, metric in zip(figures, metrics, strict=True)]
        rows.append((series.label, *([FAILED, *medians[1:]] if row.failed else medians)))
        if any(figures):
            rows.append(("", *(spread_text(found, metric) for found, metric in zip(figures, metrics, strict=True))))
    if not _fits(columns, rows):
        rows = [line for row in rows for line in ([row] if row[0] else _two_lines(row))]
    print_table(columns, rows, indent=INDENT, whole=True)
    for sentence in notes:
        paragraph(sentence, first="  ", rest="    ")


def _two_lines(row: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Ranges broken behind their hyphens, and not amid a number."""
    ends = [cell.partition("-") for cell in row]
    yield tuple(low + hyphen for low, hyphen, _ in ends)
    yield tuple(high for _, _, high in ends)


def _fits(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> bool:
    widths = [
        max(len(line) for cell in column for line in cell.split("\n")) for column in zip(columns, *rows, strict=True)
    ]
    return INDENT + sum(widths) + GAP * (len(widths) - 1) <= width()


def _show_idle(each: Named, *, several: bool) -> None:
    if each.run.baseline is None:
        return
    told, doubt = baseline_sentence(each.run.baseline), baseline_doubt(each.run.baseline)
    paragraph(f"{each.name}: {told}" if several else told, rest="  ")
    if doubt:
        paragraph(f"warning: {doubt}", rest="  ")


def _show_words(each: Named, *, several: bool) -> None:
    summary = each.run.summary
    echo("")
    if several:
        paragraph(f"{each.name}:")
    for sentence in summary.sentences or ("Nothing can be said: there is no comparison with figures on both sides.",):
        paragraph(sentence, first="- ", rest="  ")
    for sentence in summary.warnings:
        paragraph(f"warning: {sentence}", rest="  ")


def _head(metric: Metric) -> str:
    """In two lines, as the table has 80 columns: the server's CPU time is not the machine's."""
    title = heading(metric).replace("CPU/request", "CPU/req").replace("requests/s", "req/s")
    return title.replace(", ", " ").replace("server ", "server\n").replace("CPU/req ", "CPU/req\n")
