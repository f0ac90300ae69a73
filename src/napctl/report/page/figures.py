"""The figures of a report: each a chart, its legend, what it says in words, and the same as a table."""

from collections import Counter
from collections.abc import Iterable, Sequence

from napctl.model.experiment import Estimate
from napctl.model.metrics import Metric
from napctl.model.units import figure
from napctl.model.value import Value
from napctl.report.page import charts
from napctl.report.page.charts import BINS, Level, Series
from napctl.report.page.svg import SeriesStyle
from napctl.report.summary import Run
from napctl.report.table import (
    CPU_PER_REQUEST,
    P50,
    P99,
    Row,
    heading,
    interval_text,
    loads_of,
    measured,
    median_text,
    metric_of,
    readable,
    rows,
    treatments_of,
)

__all__ = [
    "ENERGY",
    "Figure",
    "Named",
    "TableCell",
    "against_load",
    "all_loads",
    "all_rows",
    "all_series",
    "named",
    "polls",
    "trade_off",
    "unit_for",
]


TITLES = {
    P50: "p50 latency",
    P99: "p99 latency",
    "server_latency_p50_us": "p50 latency, seen at the server",
    "server_latency_p99_us": "p99 latency, seen at the server",
    "wait_p50_us": "p50 wait of packets for their poll",
    "wait_p99_us": "p99 wait of packets for their poll",
    "cpu_us_per_request": "CPU time per request",
    "server_cpu_us_per_request": "The server's CPU time per request",
    "joules_per_request": "Energy per request",
    "package_watts": "Power of the package",
    "platform_watts": "Power of the platform",
}
ENERGY = ("joules_per_request", "package_watts", "platform_watts")
POLLERS = ("softirq", "NAPI thread", "server", "others")


class Legend(Value, frozen=True, kw_only=True):
    """One entry."""

    sample: str
    """SVG."""
    label: str


class TableCell(Value, frozen=True, kw_only=True):
    """One cell of a table: what it says, and in small print below how sure that is."""

    text: str
    small: str = ""


class Figure(Value, frozen=True, kw_only=True):
    """One chart with all that belongs to it."""

    ident: str
    title: str
    words: str
    chart: str
    """SVG: made of escaped text only."""
    points: int
    legend: tuple[Legend, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]

    @property
    def entries(self) -> int:
        """How many series it has: of figures that share a legend, that of the fullest one is shown."""
        return len(self.legend)


class Named(Value, frozen=True, kw_only=True):
    """A run by the name that it has on this page, with its rows by load and treatment."""

    name: str
    run: Run
    rows: dict[tuple[str, str], Row]


def named(runs: Sequence[Run], names: Sequence[str]) -> list[Named]:
    """Runs, ready for figures."""
    return [
        Named(name=name, run=run, rows={(row.load, row.treatment): row for row in
                                        rows(run.config, run.cells, run.summary)})
        for run, name in zip(runs, names, strict=True)
    ]  # fmt: skip


def all_series(runs: Sequence[Named]) -> list[Series]:
    """Each treatment of each run; the same treatments of several runs beside each other, alike but for their lines."""
    treatments = list(dict.fromkeys(
        name for each in runs for name in treatments_of(each.run.config, each.run.cells, each.run.summary)
    ))  # fmt: skip
    found = []
    for number, treatment in enumerate(treatments):
        for place, each in enumerate(runs):
            if treatment in treatments_of(each.run.config, each.run.cells, each.run.summary):
                variant = place if len(runs) > 1 else None
                label = f"{treatment} · {each.name}" if len(runs) > 1 else treatment
                look = SeriesStyle.of(number, variant=variant)
                found.append(Series(label=label, treatment=treatment, run=place, look=look))
    return found


def all_loads(runs: Sequence[Named]) -> list[str]:
    """Of all runs."""
    return list(dict.fromkeys(load for each in runs for load in loads_of(each.run.cells, each.run.summary)))


def all_rows(runs: Sequence[Named]) -> list[Row]:
    """Of all runs."""
    return [row for each in runs for row in each.rows.values()]


def unit_for(name: str, runs: Sequence[Named]) -> Metric:
    """The metric, in the unit in which its figures read best."""
    return readable(metric_of(name), [row.estimates[name].median for row in all_rows(runs) if name in row.estimates])


def against_load(ident: str, name: str, runs: Sequence[Named], series: Sequence[Series]) -> Figure | None:
    """A metric of TITLES by load; None if nobody measured it."""
    title = f"{TITLES[name]} against load"
    metric, there = unit_for(name, runs), {row.load for row in all_rows(runs) if name in row.estimates}
    loads = [load for load in all_loads(runs) if load in there]  # none has a latency at rest
    estimates = {
        each: {load: row.estimates[name] for load in loads
               if (row := runs[each.run].rows.get((load, each.treatment))) and name in row.estimates}
        for each in series
    }  # fmt: skip
    levels = {
        each: {load: Level.of(found, metric) for load, found in by_load.items()}
        for each, by_load in estimates.items() if by_load
    }  # fmt: skip
    if not levels:
        return None
    lacking = [each.label for each in series if not estimates[each]]
    which = {"lower": "Lower is better. ", "higher": "Higher is better. "}.get(metric.better, "")
    return Figure(
        ident=ident,
        title=title,
        words=f"{which}{_lacking(lacking)}".strip(),
        chart=charts.against_load(f"{title}, {heading(metric)}", metric, loads, levels),
        points=sum(map(len, levels.values())),
        legend=_legend(levels),
        head=("case", *loads),
        rows=tuple(
            (TableCell(text=each.label), *(_estimate(estimates[each].get(load), metric) for load in loads))
            for each in levels
        ),
    )


def trade_off(ident: str, load: str, runs: Sequence[Named], series: Sequence[Series]) -> Figure | None:
    """CPU time per request and p99 under one load; None if nobody measured both."""
    across, up = (unit_for(measured(name, all_rows(runs)), runs) for name in (CPU_PER_REQUEST, P99))
    points: dict[Series, tuple[Level, Level]] = {}
    table = []
    for each in series:
        found = row.estimates if (row := runs[each.run].rows.get((load, each.treatment))) else {}
        if across.name in found and up.name in found:
            points[each] = (Level.of(found[across.name], across), Level.of(found[up.name], up))
            table.append((each.label, _estimate(found[across.name], across), _estimate(found[up.name], up)))
    if not points:
        return None
    front = charts.front_of(points)
    words = f"On the front (ringed): {', '.join(front)}. The axes need not begin at 0."
    return Figure(
        ident=ident,
        title=f"Load {load}",
        words=words,
        chart=charts.plane(f"{heading(across)} against {heading(up)} under load {load}", across, up, points),
        points=len(points),
        legend=_legend(points),
        head=("case", heading(across), heading(up), "on the front"),
        rows=tuple(
            (TableCell(text=label), x, y, TableCell(text="yes" if label in front else "no")) for label, x, y in table
        ),
    )  # fmt: skip


def polls(ident: str, load: str, runs: Sequence[Named], series: Sequence[Series]) -> list[Figure]:
    """Polls by packets found, of each treatment beside its run's reference, under one load."""
    found = []
    for number, each in enumerate(series):
        run = runs[each.run].run
        reference = next((other for other in series if other.run == each.run), each)
        if each == reference:
            continue
        before, after = _polls(run, reference.treatment, load), _polls(run, each.treatment, load)
        if before and after:
            pair = (_total(before), _total(after))
            words = " ".join(_polled(one.label, by) for one, by in ((reference, before), (each, after)))
            title = f"{each.label}, load {load}"
            bars = [(one, charts.binned(total)) for one, total in zip((reference, each), pair, strict=True)]
            found.append(Figure(
                ident=f"{ident}-{number}",
                title=title,
                words=words,
                chart=charts.poll_bars(f"Polls by packets found: {title}", bars[0], bars[1]),
                points=len(BINS),
                legend=_legend((reference, each)),
                head=("packets found", f"{reference.label}, polls/s", f"{each.label}, polls/s"),
                rows=tuple(
                    (TableCell(text=name), *(TableCell(text=figure(bins[place])) for _, bins in bars))
                    for place, name in enumerate(BINS)
                ),
            ))  # fmt: skip
    return found


def _polls(run: Run, treatment: str, load: str) -> dict[str, list[float]]:
    """Polls per second by packets found, by who polled, over all rounds."""
    cells = [
        cell for cell in run.cells
        if (cell.treatment, cell.load) == (treatment, load) and cell.polls and not cell.failed and cell.seconds > 0
    ]  # fmt: skip
    seconds = sum(cell.seconds for cell in cells)
    counts: dict[str, Counter[int]] = {}
    for cell in cells:
        for poller, by_found in cell.polls.items():
            counts.setdefault(poller, Counter()).update(dict(enumerate(by_found)))
    return {
        poller: [by_found[packets] / seconds for packets in range(max(by_found, default=0) + 1)]
        for poller, by_found in counts.items()
    }


def _total(by_poller: dict[str, list[float]]) -> list[float]:
    most = max(map(len, by_poller.values()), default=0)
    return [sum(each[packets] for each in by_poller.values() if packets < len(each)) for packets in range(most)]


def _polled(label: str, by_poller: dict[str, list[float]]) -> str:
    """Who polled, and how many polls found nothing."""
    total = sum(map(sum, by_poller.values()))
    if not total:
        return f"{label}: no polls."
    order = [*(name for name in POLLERS if name in by_poller), *(name for name in by_poller if name not in POLLERS)]
    shares = ", ".join(f"{name} {sum(by_poller[name]) / total * 100:.0f} %" for name in order if any(by_poller[name]))
    empty = sum(each[0] for each in by_poller.values() if each) / total
    return f"{label}: {figure(total)} polls/s ({shares}), {empty * 100:.0f} % empty."


def _legend(series: Iterable[Series]) -> tuple[Legend, ...]:
    return tuple(Legend(sample=charts.legend(each.look), label=each.label) for each in series)


def _estimate(estimate: Estimate | None, metric: Metric) -> TableCell:
    return TableCell(text=median_text(estimate, metric), small=interval_text(estimate, metric))


def _lacking(labels: Sequence[str]) -> str:
    return f"Not measured: {', '.join(labels)}." if labels else ""
