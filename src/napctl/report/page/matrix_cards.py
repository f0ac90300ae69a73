"""The matrix of a report: one card for each load, which stand beside each other where there is room."""

from napctl.model.value import Value
from napctl.report.matrix import SIGNS, Entry, Line, brief_change, matrix
from napctl.report.summary import Run
from napctl.report.table import ABSENT, Kind, change, interval_text, median_text

__all__ = ["matrix_of"]


class Mark(Value, frozen=True, kw_only=True):
    """What one treatment changes of one metric."""

    text: str
    """The change; of the reference, and where nothing is compared, the figure."""
    sign: str
    kind: Kind | str
    tip: str


class Card(Value, frozen=True, kw_only=True):
    """The matrix under one load."""

    load: str
    head: tuple[tuple[str, str], ...]
    """Title and unit of each column."""
    rows: tuple[tuple[str, tuple[Mark, ...]], ...]
    """Treatment, and its marks."""


def matrix_of(run: Run) -> list[Card]:
    """From the lightest load to the heaviest."""
    return [
        Card(
            load=each.load,
            head=tuple((metric.title, metric.unit) for metric in each.metrics),
            rows=tuple(
                (line.treatment, tuple(_mark(line, entry, first=not at) for at, entry in enumerate(line.entries)))
                for line in each.lines
            ),
        )
        for each in matrix(run)
    ]


def _mark(line: Line, entry: Entry, *, first: bool) -> Mark:
    if line.failed:
        return Mark(text="failed" if first else ABSENT, sign="", kind="failed", tip="")
    figures = f"{median_text(entry.estimate, entry.metric)} {entry.metric.unit}".strip()
    if entry.estimate is not None:
        figures += f" ({interval_text(entry.estimate, entry.metric)})"
    found = entry.found
    if found is None or found.stand_in == 0:
        return Mark(text=median_text(entry.estimate, entry.metric), sign="", kind="figure", tip=figures)
    tip = f"{figures}; change {change(found.ratio)}, 95 % interval {change(found.low)} to {change(found.high)}"
    return Mark(
        text=brief_change(found.ratio, differs=entry.kind != "none"), sign=SIGNS[entry.kind], kind=entry.kind, tip=tip
    )
