"""The tables of a report, as rows of cells: what the template only has to lay out."""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from napctl.model.experiment import NOTHING, Comparison, Estimate, SavingsBound, saved_metric
from napctl.model.metrics import Metric
from napctl.model.units import figure
from napctl.model.value import Value
from napctl.report.matrix import SIGNS
from napctl.report.page.charts import ratio_line, share_bar
from napctl.report.page.figures import Named, TableCell, all_loads, all_rows, all_series, unit_for
from napctl.report.sentences import NO_DIFFERENCE
from napctl.report.summary import Run
from napctl.report.table import (
    ABSENT,
    all_metrics,
    change,
    failure_text,
    heading,
    interval_text,
    kind,
    loads_of,
    median_text,
    metric_of,
    shown_metrics,
    smallest_text,
    treatments_of,
)

__all__ = [
    "Table",
    "beside",
    "bounds",
    "comparisons",
    "conditions",
    "differences",
    "estimates",
    "glance",
    "machine_rows",
    "orders",
    "sources",
    "what_differs",
]


LOADS = {"load": "a command, run for each cell", "live": "the traffic that was there", "lab": "the lab's own"}
MOST_REACH = 4.0
"""Ratios beyond 4 or 1/4 are drawn as arrows."""


class Table(Value, frozen=True, kw_only=True):
    """Rows under their heads; the first cell of each is the head of its row."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    notes: tuple[str, ...] = ()


class Compared(Value, frozen=True, kw_only=True):
    """A row of comparisons."""

    metric: str
    treatment: str
    change: str
    interval: str
    line: str
    """SVG."""
    sign: str
    judgement: str
    kind: str
    smallest: str
    blocks: int
    note: str = ""


class Bounded(Value, frozen=True, kw_only=True):
    """A row of the bound: what could be saved at most, and what was."""

    what: str
    share: str
    bar: str
    """SVG."""
    remark: str = ""


def glance(runs: Sequence[Named]) -> list[Table]:
    """The table as the field knows it: one for each load."""
    metrics = [unit_for(name, runs) for name in shown_metrics(all_rows(runs))]
    tables = []
    for load in all_loads(runs):
        rows, notes = [], []
        for series in all_series(runs):
            row = runs[series.run].rows.get((load, series.treatment))
            if row is None:
                continue
            cells = [
                TableCell(text=median_text(row.estimates.get(metric.name), metric),
                     small=interval_text(row.estimates.get(metric.name), metric))
                for metric in metrics
            ]  # fmt: skip
            rows.append((TableCell(text=series.label, small="failed" if row.failed else ""), *cells))
            notes += [failure_text(series.label, failure, row.cells) for failure in row.failures]
        head = ("case", *(heading(metric) for metric in metrics))
        tables.append(Table(title=f"Load {load}", head=head, rows=tuple(rows), notes=tuple(notes)))
    return tables


def estimates(runs: Sequence[Named]) -> list[Table]:
    """Every metric of every treatment: one table for each load."""
    tables = []
    for load in all_loads(runs):
        series = [each for each in all_series(runs)
                  if (row := runs[each.run].rows.get((load, each.treatment))) and row.estimates]  # fmt: skip
        found = {each: runs[each.run].rows[load, each.treatment].estimates for each in series}
        metrics = [unit_for(name, runs) for name in all_metrics(name for each in found.values() for name in each)]
        rows = tuple(
            (
                TableCell(text=heading(metric), small=metric.of),
                *(TableCell(text=median_text(by.get(metric.name), metric),
                            small=interval_text(by.get(metric.name), metric))
                  for by in found.values()),
            )
            for metric in metrics
        )  # fmt: skip
        tables.append(Table(title=f"Load {load}", head=("metric", *(each.label for each in series)), rows=rows))
    return tables


def comparisons(run: Run) -> list[tuple[str, list[Compared], list[Compared]]]:
    """By load: every comparison, metrics in their order; apart those of which neither way is better: they explain."""
    found = []
    for load, those in _by_load(run, run.summary.comparisons):
        judged = [each for each in those if metric_of(each.metric).better]
        others = [each for each in those if not metric_of(each.metric).better]
        found.append((load, _all_compared(judged), _all_compared(others)))
    return found


def beside(run: Run) -> list[tuple[str, list[Compared]]]:
    """By load: comparisons with others than the reference, which name both."""
    named = [replace(each, treatment=f"{each.treatment} against {each.reference}") for each in run.summary.between]
    return [(load, _all_compared(those)) for load, those in _by_load(run, named)]


def _by_load(run: Run, those: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """From light to heavy, each in the order of metrics and treatments."""
    treatments = treatments_of(run.config, run.cells, run.summary)
    metrics = all_metrics(each.metric for each in those)
    for load in dict.fromkeys([*loads_of(run.cells, run.summary), *(each.load for each in those)]):
        found = [each for each in those if each.load == load]
        found.sort(key=lambda each: (metrics.index(each.metric), _place(treatments, each.treatment)))
        if found:
            yield load, found


def _all_compared(those: Sequence[Comparison]) -> list[Compared]:
    far = [max(value, 1 / value) for each in those for value in (each.low, each.high) if value > 0]
    reach = min(MOST_REACH, max([1.1, *far]))  # the axis goes as far as their intervals, but not without end
    return [_compared(each, reach) for each in those]


def _compared(each: Comparison, reach: float) -> Compared:
    void = each.stand_in == 0
    return Compared(
        metric=metric_of(each.metric).title,
        treatment=each.treatment,
        change="all 0" if void else change(each.ratio),
        interval=ABSENT if void else f"{change(each.low)} to {change(each.high)}",
        note=f"0 counts as {figure(each.stand_in * metric_of(each.metric).factor)}" if each.stand_in else "",
        line=ratio_line(each.ratio, each.low, each.high, reach, f"is-{kind(each)}"),
        sign=SIGNS[kind(each)],
        judgement=NO_DIFFERENCE if each.judgement == NOTHING else each.judgement,
        kind=kind(each),
        smallest=smallest_text(each),
        blocks=each.blocks,
    )


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def bounds(run: Run) -> list[tuple[str, list[Bounded]]]:
    """By load: the network's share of the CPU time, and beside it what each treatment saved; not where nothing is
    compared."""
    found = []
    loads, treatments = loads_of(run.cells, run.summary), treatments_of(run.config, run.cells, run.summary)
    shares = [share for bound in run.summary.bounds for share in (bound.network_cpu_share, *bound.saved_share.values())]
    least, most = min(shares, default=0.0), max(shares, default=1.0)
    compared = {(each.load, each.treatment): each for each in run.summary.comparisons
                if each.metric == saved_metric(each.load)}  # fmt: skip
    for bound in sorted(
        (each for each in run.summary.bounds if each.saved_share), key=lambda each: _place(loads, each.load)
    ):
        names = sorted(bound.saved_share, key=lambda name: _place(treatments, name))
        first = Bounded(
            what="bound: spent on the network",
            share=_percent(bound.network_cpu_share),
            bar=share_bar(bound.network_cpu_share, least, most, "most"),
        )
        rows = [_saved(bound, name, least, most, compared.get((bound.load, name))) for name in names]
        found.append((bound.load, [first, *rows]))
    return found


def _saved(bound: SavingsBound, treatment: str, least: float, most: float, found: Comparison | None) -> Bounded:
    share = bound.saved_share[treatment]
    remark = ""
    if found is None or found.judgement == NOTHING:
        remark = "within the noise: no significant difference"
    elif 1 - found.high > bound.network_cpu_share:
        remark = "more than the bound: wake-ups and caches changed, too"
    css = "cost" if share < 0 else "saved"
    bar = share_bar(share, least, most, css)
    return Bounded(what=f"saved by {treatment}", share=_percent(share), bar=bar, remark=remark)


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %".replace("-", "−")


# Between runs


def differences(runs: Sequence[Named]) -> list[Table]:
    """The same treatment under the same load in the first run and in each other one."""
    first, *others = runs
    metrics = [unit_for(name, runs) for name in shown_metrics(all_rows(runs))]
    tables = []
    for other in others:
        for load in all_loads(runs):
            both = [
                (treatment, row, other.rows[load, treatment])
                for (of, treatment), row in first.rows.items()
                if of == load and (load, treatment) in other.rows
            ]
            rows = tuple(
                (TableCell(text=treatment), *(
                    _difference(a.estimates.get(each.name), b.estimates.get(each.name), each) for each in metrics
                ))
                for treatment, a, b in both if a.estimates and b.estimates
            )  # fmt: skip
            if rows:
                head = ("case", *(heading(metric) for metric in metrics))
                tables.append(Table(title=f"{other.name} against {first.name}, load {load}", head=head, rows=rows))
    return tables


def _difference(a: Estimate | None, b: Estimate | None, metric: Metric) -> TableCell:
    """The change, if the intervals lie apart. Runs are not paired: there is no test of their difference."""
    if a is None or b is None:
        return TableCell(text=ABSENT)
    medians = f"{median_text(a, metric)} → {median_text(b, metric)}"
    if b.low <= a.high and a.low <= b.high:
        return TableCell(text="overlap", small=medians)
    return TableCell(text=change(b.median / a.median) if a.median > 0 else "apart", small=medians)


def what_differs(runs: Sequence[Named]) -> list[tuple[str, list[str]]]:
    """Everything by which the machines and the conditions of the runs differ."""
    told = [{**dict(conditions(each.run)), **{f"machine: {k}": v for k, v in machine_rows(each.run.machine)}}
            for each in runs]  # fmt: skip
    names = list(dict.fromkeys(name for each in told for name in each))
    rows = [(name, [each.get(name, ABSENT) for each in told]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


# How it was measured


def conditions(run: Run) -> list[tuple[str, str]]:
    """What is needed to repeat it."""
    config = run.config
    rates = ", ".join(f"{rate:,.0f}/s" if rate else "as many as possible" for rate in config.rates)
    seconds, settle, warmup = (f"{each:g} s" for each in (config.seconds, config.settle_seconds, config.warmup_seconds))
    rest = "" if config.rest_rounds is None else f"; at rest {config.rest_rounds}"
    told = [
        ("napctl", config.napctl),
        ("seed of the order", str(config.seed)),
        ("treatments", ", ".join(config.treatments)),
        ("loads asked for", rates),
        ("rounds", f"{config.rounds}: each has every treatment under every load once, in random order{rest}"),
        ("length of a cell", f"{seconds} measured, after {settle} to settle and {warmup} to warm up"),
        ("server", config.target),
        ("load", LOADS.get(config.source, config.source)),
        ("command of the load", config.load),
        ("the same, for as much as possible", config.max_load),
        ("its output is read as", config.adapter),
    ]  # fmt: skip
    for name, watts in (("idle", config.idle_watts), ("busy", config.busy_watts)):
        if watts is not None:
            told.append((f"power when {name}, as the user gave it", f"{watts:g} W"))
    return [(name, value) for name, value in told if value]


def machine_rows(machine: Any) -> list[tuple[str, str]]:
    """Whatever is known of the machine: names and values, nested names with dots; lists of plain values in one."""
    return list(_flat("", machine))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), each)
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for number, each in enumerate(value):
            yield from _flat(f"{name}[{number}]", each)
    elif value not in (None, [], {}):
        yield name or "machine", ", ".join(map(_plain, value)) if isinstance(value, list) else _plain(value)


def _plain(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def sources(run: Run) -> list[tuple[str, str]]:
    """Metric: where its figures come from."""
    found: dict[str, dict[str, None]] = {}
    for cell in run.cells:
        for metric, source in cell.sources.items():
            found.setdefault(metric, {})[source] = None
    return [(metric_of(name).title, "; ".join(found[name])) for name in all_metrics(found)]


def orders(run: Run) -> list[tuple[int, str]]:
    """Round: the cells in the order in which they were measured."""
    rounds: dict[int, list[str]] = {}
    for cell in sorted(run.cells, key=lambda cell: cell.position):
        rounds.setdefault(cell.round, []).append(f"{cell.treatment} {cell.load}")
    return [(number, " · ".join(rounds[number])) for number in sorted(rounds)]
