"""A run as rows: treatments and loads in their order, each with its estimates or why there are none. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Literal

from napctl.model.experiment import NOTHING, Cell, Comparison, Estimate, RunConfig, Summary
from napctl.model.metrics import ALL, BY_NAME, Metric
from napctl.model.units import figure
from napctl.model.value import Value

__all__ = [
    "ABSENT",
    "CPU_PER_REQUEST",
    "P50",
    "P99",
    "Failure",
    "Kind",
    "Row",
    "all_metrics",
    "change",
    "failure_text",
    "heading",
    "interval",
    "interval_text",
    "kind",
    "loads_of",
    "measured",
    "median_text",
    "metric_of",
    "pareto",
    "readable",
    "rows",
    "short",
    "short_text",
    "shown_metrics",
    "smallest_text",
    "spread_text",
    "treatments_of",
]


ABSENT = "–"
"""What was not measured; never 0."""
P50, P99 = "latency_p50_us", "latency_p99_us"
CPU_PER_REQUEST = "cpu_us_per_request"
INSTEAD = {
    "requests_per_second": "packets_per_second",
    P50: "server_latency_p50_us",
    P99: "server_latency_p99_us",
    "server_latency_p50_us": "wait_p50_us",
    "server_latency_p99_us": "wait_p99_us",
    "cpu_share": "server_cpu_share",
    CPU_PER_REQUEST: "server_cpu_us_per_request",
}
"""What takes a metric's place where it was not measured: of live traffic, or where only the server was looked at."""
SHOWN = ("requests_per_second", "latency_avg_us", P50, "latency_p95_us", P99, "cpu_share", CPU_PER_REQUEST)
"""The columns of the table as the field knows it."""
LEAST_SHOWN = 0.005
"""What is less is 0.00 in the table."""
Kind = Literal["better", "worse", "different", "none"]


class Failure(Value, frozen=True, kw_only=True):
    """Why cells of one treatment under one load have no figures."""

    why: str
    cells: int


class Row(Value, frozen=True, kw_only=True):
    """One treatment under one load."""

    treatment: str
    load: str
    cells: int
    """How many were tried."""
    estimates: dict[str, Estimate]
    """By Metric.name; what was not measured is missing."""
    failures: tuple[Failure, ...]

    @property
    def failed(self) -> bool:
        """Whether no cell of it has figures."""
        return not self.estimates and bool(self.failures)


def treatments_of(config: RunConfig, cells: Iterable[Cell], summary: Summary) -> list[str]:
    """In the order in which they were asked for; the first is the reference."""
    found = [*config.treatments, *(cell.treatment for cell in cells), *(each.treatment for each in summary.estimates)]
    return list(dict.fromkeys(found))


def loads_of(cells: Iterable[Cell], summary: Summary) -> list[str]:
    """From the lightest to the heaviest; what has no rate ("max", "live") last."""
    rates: dict[str, float] = {}
    for cell in cells:
        rates.setdefault(cell.load, float("inf") if cell.asked_per_second is None else cell.asked_per_second)
    for each in summary.estimates:
        rates.setdefault(each.load, float("inf"))
    return sorted(rates, key=lambda load: rates[load])


def rows(config: RunConfig, cells: Sequence[Cell], summary: Summary) -> list[Row]:
    """One for each load and treatment, loads outside. One without any cell or estimate is left out."""
    estimates: dict[tuple[str, str], dict[str, Estimate]] = {}
    for each in summary.estimates:
        estimates.setdefault((each.load, each.treatment), {})[each.metric] = each
    tried = Counter((cell.load, cell.treatment) for cell in cells)
    failed = Counter((cell.load, cell.treatment, cell.failed) for cell in cells if cell.failed)
    found = []
    for load in loads_of(cells, summary):
        for treatment in treatments_of(config, cells, summary):
            key = (load, treatment)
            failures = tuple(Failure(why=why, cells=n) for (*of, why), n in failed.items() if tuple(of) == key)
            if tried[key] or key in estimates:
                row = Row(treatment=treatment, load=load, cells=tried[key], estimates=estimates.get(key, {}),
                          failures=failures)  # fmt: skip
                found.append(row)
    return found


def measured(name: str, among: Iterable[Row]) -> str:
    """The metric, or the one in its place where no row has it, but some have that."""
    found = {metric for row in among for metric in row.estimates}
    other: str | None = name
    while other is not None and other not in found:
        other = INSTEAD.get(other)
    return other or name


def shown_metrics(among: Sequence[Row]) -> list[str]:
    """Names of the columns that the table has, in its order: also without figures, but for those that need not be."""
    found = {metric for row in among for metric in row.estimates}
    names = [measured(name, among) for name in SHOWN]
    return [name for name in names if name in found or name in INSTEAD]


def all_metrics(names: Iterable[str]) -> list[str]:
    """Those, in the order in which metrics are shown; ones that nobody knows last."""
    order = [metric.name for metric in ALL]
    return sorted(set(names), key=lambda name: (order.index(name) if name in BY_NAME else len(order), name))


def metric_of(name: str) -> Metric:
    """By name; of one that nobody knows, the name is all there is."""
    return BY_NAME.get(name) or Metric(name=name, title=name)


def heading(metric: Metric) -> str:
    """Title and unit: "p99, µs"."""
    return f"{metric.title}, {metric.unit}" if metric.unit else metric.title


def readable(metric: Metric, values: Iterable[float]) -> Metric:
    """The metric in a unit that suits these values: mJ or µJ instead of 0.0004 J."""
    most = max((abs(value) for value in values), default=0.0)
    if metric.unit != "J" or not most:
        return metric
    factor, unit = (1.0, "J") if most >= 0.5 else (1e3, "mJ") if most >= 0.5e-3 else (1e6, "µJ")
    return Metric(name=metric.name, title=metric.title, unit=unit, factor=factor, better=metric.better)


def interval(low: float, high: float) -> str:
    """Both ends: 401–440."""
    return f"{figure(low)} to {figure(high)}" if min(low, high) < 0 else f"{figure(low)}–{figure(high)}"


def median_text(estimate: Estimate | None, metric: Metric) -> str:
    """The median in the metric's unit; ABSENT if it was not measured."""
    return ABSENT if estimate is None else figure(estimate.median * metric.factor)


def interval_text(estimate: Estimate | None, metric: Metric) -> str:
    """Its interval in the metric's unit, or nothing."""
    return "" if estimate is None else interval(estimate.low * metric.factor, estimate.high * metric.factor)


def _unit_of(value: float) -> tuple[str, float]:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return unit, size
    return "", 1.0


def short(value: float) -> str:
    """At most four characters, for the terminal: 0, 0.41, 7.9, 162, 5.8k, 120k, 1.2M."""
    unit, size = _unit_of(value)
    if unit:
        scaled = value / size
        return f"{scaled:.0f}{unit}" if scaled >= 9.95 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}" if value >= 9.95 or value == 0 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def short_text(estimate: Estimate | None, metric: Metric) -> str:
    """The median, for the terminal; ABSENT if it was not measured."""
    return ABSENT if estimate is None else short(estimate.median * metric.factor)


def spread_text(estimate: Estimate | None, metric: Metric) -> str:
    """Both ends of its interval, for the terminal, or nothing: "162-290", "185-1400", "1.0k-5.1k".

    Both have one unit, the lower one's: "2.4-2.4k" would be read as 2,400 to 2,400.
    """
    if estimate is None:
        return ""
    ends = estimate.low * metric.factor, estimate.high * metric.factor
    low, high = map(short, ends)
    unit, size = _unit_of(ends[0])
    if ends[0] and unit != _unit_of(ends[1])[0]:
        high = f"{float(f'{ends[1] / size:.3g}'):.0f}{unit}"
    return high if low == high or ends[1] < LEAST_SHOWN else f"{low}-{high}"


def change(ratio: float) -> str:
    """A ratio as a change: "−12.3 %", "+4.0 %"; "3.2 times" beyond a doubling; ABSENT for what is no ratio."""
    if not isfinite(ratio):
        return ABSENT
    if ratio >= 2:
        return f"{figure(ratio)} times"
    text = f"{(ratio - 1) * 100:+.1f} %"
    return "±0.0 %" if float(text[:-1]) == 0 else text.replace("-", "−")


def failure_text(label: str, failure: Failure, cells: int) -> str:
    """Why a treatment has no figures, or fewer."""
    return f"{label} failed in {failure.cells} of {cells} round{'s' * (cells != 1)}: {failure.why}"


def smallest_text(comparison: Comparison) -> str:
    """The smallest difference that could have been found, as a share of the reference."""
    if comparison.stand_in == 0 or not isfinite(comparison.smallest):
        return ABSENT
    return f"{comparison.smallest * 100:.1f} %" if comparison.smallest < 1 else f"factor {1 + comparison.smallest:.2g}"


def kind(comparison: Comparison) -> Kind:
    """Its judgement as one word."""
    return "none" if comparison.judgement == NOTHING else comparison.judgement


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other one beats: none is as low in both and lower in one. By the first coordinate."""

    def beaten(name: str) -> bool:
        x, y = points[name]
        return any(a <= x and b <= y and (a, b) != (x, y) for a, b in points.values())

    return sorted((name for name in points if not beaten(name)), key=lambda name: points[name])
