"""A run in the terminal at one look: one table, the answer in at most three sentences, how many warnings."""

from collections.abc import Sequence
from itertools import chain

from napctl.cli.terminal import echo
from napctl.cli.terminal import width as terminal_width
from napctl.cli.text.table import GAP, paragraph, wrapped
from napctl.experiment.idle_baseline import baseline_doubt
from napctl.model.experiment import Estimate, RunConfig
from napctl.report.answers import answers
from napctl.report.labels import in_words
from napctl.report.matrix import REST, SIGNS, Entry, Loaded, brief_change, matrix
from napctl.report.summary import Run
from napctl.report.table import failure_text, heading, measured, metric_of, rows, short_text

__all__ = ["show_brief", "warning_count"]


FEW = 2.0
"""At rest who uses more than so many times as much as the reference is named, the others together."""


def show_brief(run: Run) -> None:
    """Print it."""
    run = in_words(run)
    loads = matrix(run)
    for text in _lines(loads):
        echo(text)
    config = run.config
    if any(entry.found for load in loads for line in load.lines for entry in line.entries):
        paragraph(_legend(config))
    for text in _failures(loads):
        paragraph(text, rest="  ")
    if rest := _rest(run):
        paragraph(rest, rest="  ")
    for sentence in answers(run):
        paragraph(sentence, rest="  ")


def warning_count(runs: Sequence[Run]) -> str:
    """ "no warnings", "1 warning", "3 warnings": they stand on the page."""
    count = sum(len(run.summary.warnings) + bool(run.baseline and baseline_doubt(run.baseline)) for run in runs)
    return f"{count or 'no'} warning{'s' * (count != 1)}"


def _legend(config: RunConfig) -> str:
    marks = f"{SIGNS['better']} better, {SIGNS['worse']} worse than {config.treatments[0]}; else not significant."
    return f"{marks} {config.rounds} × {config.seconds:g} s, seed {config.seed}"


def _lines(loads: Sequence[Loaded]) -> list[str]:
    """The table: figures flush right, their changes flush left beside them; names that leave no room on lines of their
    own."""
    metrics = {metric.name: metric for load in loads for metric in load.metrics}
    order = list(metrics)
    if loads:
        order.sort(key=[metric.name for metric in max(loads, key=lambda load: len(load.metrics)).metrics].index)
    names: list[tuple[str, str]] = [("load", "treatment")]
    table: list[list[tuple[str, str]]] = [
        [(heading(metrics[name]).replace("CPU/request", "CPU/req"), "") for name in order]
    ]
    for load in loads:
        for number, line in enumerate(load.lines):
            names.append((load.load if not number else "", line.treatment))
            by_name = {entry.metric.name: entry for entry in line.entries}
            cells = [_cell(by_name[name]) if name in by_name else ("", "") for name in order]
            table.append([("failed", ""), *cells[1:]] if line.failed else cells)
    figures = [_column([row[place] for row in table]) for place in range(len(order))]
    rows = [(" " * GAP).join(cells).rstrip() for cells in zip(*figures, strict=True)] if figures else [""] * len(names)
    first, second = (max(len(each[place]) for each in names) for place in (0, 1))
    beside = [f"{load:{first}}{' ' * GAP}{name:{second}}{' ' * GAP}{row}".rstrip()
              for (load, name), row in zip(names, rows, strict=True)]  # fmt: skip
    if max(map(len, beside)) <= terminal_width():
        return beside
    return list(chain.from_iterable(
        (*wrapped(f"{load}  {name}" if load else name), f"{' ' * GAP}{row}") for (load, name), row in
        zip(names, rows, strict=True)
    ))  # fmt: skip


def _column(cells: Sequence[tuple[str, str]]) -> list[str]:
    """A head, which may take the width of both, above figures and their changes."""
    (head, _), *rest = cells
    left, right = (max((len(each[place]) for each in rest), default=0) for place in (0, 1))
    left = max(left, len(head) - right - 1) if right else max(left, len(head))
    whole = left + (1 + right if right else 0)
    return [head.rjust(left).ljust(whole), *(f"{a:>{left}} {b:{right}}" if right else a.rjust(left) for a, b in rest)]


def _cell(entry: Entry) -> tuple[str, str]:
    text = short_text(entry.estimate, entry.metric)
    if entry.found is None or entry.kind == "none":
        return text, ""
    return text, f"{SIGNS[entry.kind]} {brief_change(entry.found.ratio)}"


def _failures(loads: Sequence[Loaded]) -> list[str]:
    """Why treatments have no figures, or fewer; the loads only where it is not all of them."""
    found: dict[str, list[str]] = {}
    for load in loads:
        for line in load.lines:
            for failure in line.failures:
                found.setdefault(failure_text(line.treatment, failure, line.cells), []).append(load.load)
    return [text if len(at) == len(loads) else f"{text} ({', '.join(at)})" for text, at in found.items()]


def _rest(run: Run) -> str:
    """ "At rest, CPU: busy polling 100 %, the others 0.7 to 1.2 % (no verdict)."; empty: not measured."""
    at_rest = [row for row in rows(run.config, run.cells, run.summary) if row.load == REST]
    metric = metric_of(measured("cpu_share", at_rest))
    found: dict[str, Estimate] = {
        row.treatment: row.estimates[metric.name] for row in at_rest if metric.name in row.estimates
    }
    if not found:
        return ""
    usual = next(iter(found.values())).median * FEW
    named = [f"{name} {short_text(each, metric)} %" for name, each in found.items() if each.median > usual]
    others = sorted((each for each in found.values() if each.median <= usual), key=lambda each: each.median)
    ends = dict.fromkeys(short_text(each, metric) for each in (others[0], others[-1])) if others else {}
    who = f"the other{'s' * (len(others) != 1)}" if named else "all"
    parts = [*named, *([f"{who} {' to '.join(ends)} %"] if ends else [])]
    verdict = "" if any(each.load == REST for each in run.summary.comparisons) else " (no verdict)"
    return f"At rest, {metric.title}: {', '.join(parts)}{verdict}."
