"""A run at one look: treatments × loads × what an experiment is made for, each with its change if there is one. Pure.

A change is shown only where the comparison with the reference, corrected for all of them, found one.
"""

from collections.abc import Sequence

from napctl.model.experiment import LIVE, MAX, Comparison, Estimate
from napctl.model.metrics import Metric
from napctl.model.units import figure
from napctl.model.value import Value
from napctl.report.summary import Run
from napctl.report.table import (
    CPU_PER_REQUEST,
    P50,
    P99,
    Failure,
    Kind,
    Row,
    kind,
    measured,
    metric_of,
    readable,
    rows,
)

__all__ = ["RATE", "REST", "SIGNS", "Entry", "Line", "Loaded", "brief_change", "matrix"]


REST = "rest"
"""The load under which nothing is asked for: only what is used meanwhile can be told of it."""
SIGNS: dict[Kind, str] = {"better": "✓", "worse": "✗", "different": "◆", "none": "≈"}
"""Told apart by their shapes."""
RATE = "requests_per_second"
COLUMNS = (RATE, P50, P99, CPU_PER_REQUEST)
OTHERWISE = {P50: "latency_avg_us", P99: "latency_p95_us", CPU_PER_REQUEST: "cpu_share"}
"""Of a load tool that tells less, and of live traffic."""


class Entry(Value, frozen=True, kw_only=True):
    """One metric of one treatment under one load."""

    metric: Metric
    estimate: Estimate | None
    """None: not measured."""
    found: Comparison | None = None
    """With the reference; None: there is none."""

    @property
    def kind(self) -> Kind:
        """What the comparison found."""
        return kind(self.found) if self.found else "none"


class Line(Value, frozen=True, kw_only=True):
    """One treatment under one load."""

    treatment: str
    failed: bool
    failures: tuple[Failure, ...]
    cells: int
    entries: tuple[Entry, ...]


class Loaded(Value, frozen=True, kw_only=True):
    """One load."""

    load: str
    metrics: tuple[Metric, ...]
    """Its columns: requests/s only where they are a result, or differ."""
    lines: tuple[Line, ...]
    """The reference first."""


def matrix(run: Run) -> list[Loaded]:
    """By load, from the lightest to the heaviest; without what was measured at rest."""
    all_rows = [row for row in rows(run.config, run.cells, run.summary) if row.load != REST]
    compared = {(each.load, each.treatment, each.metric): each for each in run.summary.comparisons}
    names = _columns(all_rows)
    found = []
    for load in dict.fromkeys(row.load for row in all_rows):
        here = [row for row in all_rows if row.load == load]
        differs = any(kind(each) != "none" for (where, _, name), each in compared.items()
                      if where == load and name == names[0])  # fmt: skip
        shown = names if load in (MAX, LIVE) or differs or names[0] != measured(RATE, all_rows) else names[1:]
        metrics = tuple(
            readable(metric_of(name), [row.estimates[name].median for row in all_rows if name in row.estimates])
            for name in shown
        )
        lines = tuple(
            Line(
                treatment=row.treatment, failed=row.failed, failures=row.failures, cells=row.cells,
                entries=tuple(
                    Entry(metric=each, estimate=row.estimates.get(each.name),
                          found=compared.get((load, row.treatment, each.name)))
                    for each in metrics
                ),
            )
            for row in here
        )  # fmt: skip
        found.append(Loaded(load=load, metrics=metrics, lines=lines))
    return found


def _columns(among: Sequence[Row]) -> list[str]:
    """Those that anybody measured."""
    there = {metric for row in among for metric in row.estimates}
    names = [measured(name, among) for name in COLUMNS]
    names = [OTHERWISE.get(own, name) if name not in there else name for own, name in zip(COLUMNS, names, strict=True)]
    return [name for name in names if name in there] or [measured(RATE, among)]


def brief_change(ratio: float, *, differs: bool = True) -> str:
    """ "−62%", "+4%", "×2.9": as short as it can be; and of what differs never 0 or −100 % if it only comes near it."""
    if ratio >= 2:
        return f"×{figure(ratio) if ratio >= 9.95 else f'{ratio:.1f}'}"
    percent = (ratio - 1) * 100
    for digits in range(3 if differs else 1):
        rounded = round(percent, digits)
        if rounded and (rounded > -100 or ratio == 0):
            return f"{percent:+.{digits}f}%".replace("-", "−")
    return "±0%" if ratio > 0.5 else "−100%"
