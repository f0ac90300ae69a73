"""Cells and their summary for tests: per load and treatment, the median over rounds and the spread."""

from collections.abc import Iterable
from statistics import median

from napctl.model.value import Value


class Cell(Value, frozen=True, kw_only=True):
    """One treatment under one load in one round. None: not measured, or without meaning in this cell."""

    treatment: str
    load: str
    round: int
    asked_per_second: float
    requests_per_second: float
    p50_us: float | None
    p99_us: float | None
    server_cpu_share: float
    """CPU time of the server and of its device's NAPI threads by time, 0 … 1; from the scheduler."""
    cpu_us_per_request: float | None
    net_rx_softirqs_per_second: float | None
    """On all CPUs."""
    kernel_polls_per_second: float | None
    """Polls of the server's NAPI instances by softirq or NAPI thread."""
    server_poll_share: float | None
    """Share of the polls of the server's NAPI instances, 0 … 1, that the server made itself."""
    generator_busy_share: float
    """Near 1: the load generator was the limit, not the server."""
    generator_late_share: float
    """Share of requests, 0 … 1, that the generator sent more than 100 µs late: the latencies are partly its own."""

    @property
    def doubtful(self) -> bool:
        """The load generator was too late or too busy for the latencies to be the server's alone."""
        return self.generator_late_share > 0.01 or self.generator_busy_share > 0.9


METRICS = tuple(name for name in Cell.__struct_fields__ if name not in ("treatment", "load", "round"))


class Spread(Value, frozen=True, kw_only=True):
    """A figure over rounds."""

    median: float
    least: float
    most: float


class Row(Value, frozen=True, kw_only=True):
    """One treatment under one load, over all rounds. A metric without any figure is left out."""

    treatment: str
    load: str
    rounds: int
    metrics: dict[str, Spread]


def spread(figures: Iterable[float | None]) -> Spread | None:
    """Median, least and most of the figures that there are; None without any."""
    known = [figure for figure in figures if figure is not None]
    return Spread(median=median(known), least=min(known), most=max(known)) if known else None


def summarise(cells: list[Cell]) -> list[Row]:
    """One row per load and treatment, in the order of their first cells of round 1."""
    keys = list(dict.fromkeys((cell.load, cell.treatment) for cell in cells))
    rows = []
    for load, treatment in keys:
        group = [cell for cell in cells if (cell.load, cell.treatment) == (load, treatment)]
        metrics = {name: found for name in METRICS if (found := spread(getattr(cell, name) for cell in group))}
        rows.append(Row(treatment=treatment, load=load, rounds=len(group), metrics=metrics))
    return rows


FEWEST_ROUNDS = 4
"""With fewer, chance makes such a difference too often: 10 % for 3 rounds."""


def compare(first: Row, second: Row, metric: str) -> str | None:
    """ "lower", "higher" or "no different": how `first` stands to `second`. None if one lacks the figure.

    A difference is claimed only if all rounds of one lie beyond all rounds of the other. Under no difference, n rounds
    each do that by chance with a probability of 2 / C(2n, n) (the extreme of the Mann-Whitney test): 2.9 % for n = 4.
    """
    a, b = first.metrics.get(metric), second.metrics.get(metric)
    if min(first.rounds, second.rounds) < FEWEST_ROUNDS:
        return None if a is None or b is None else "no different"
    if a is None or b is None:
        return None
    return "lower" if a.most < b.least else "higher" if a.least > b.most else "no different"
