"""An experiment: treatments × loads × rounds, in random order within each round, each cell on disk before the next."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from napctl.measure import loadrun
from napctl.measure.gauge import Figures, Gauge
from napctl.measure.rundir import RunDirectory
from napctl.measure.statistics import summarise
from napctl.measure.treatments import NotTakenBack, Place, Treatment, applied
from napctl.model.errors import ChangedMeanwhile, NapctlError
from napctl.model.experiment import Cell, RunConfig, Summary

REST = -1.0
"""The rate that stands for open connections and no requests."""

MEASURED_AGAIN = "measured again, as other work disturbed the load generator"

Progress = Callable[[str, int, int], None]
"""Called before each cell: what is measured, the how manieth of how many."""


class Harmful(NapctlError):
    """A treatment went beyond a limit that the user set for live traffic, and was taken back."""


@dataclass(frozen=True)
class Told:
    """What a load told of one cell, and what was measured beside it."""

    metrics: dict[str, float]
    latency: tuple[tuple[float, int], ...]
    figures: Figures
    warnings: tuple[str, ...] = ()
    disturbed: bool = False
    """Whether other work of the machine came in the way of the load: that says nothing of the treatment."""
    errors: float | None = None
    """Requests that failed or stayed without an answer; None: not told."""
    load_seconds: float | None = None
    """For how long requests were made; None: in all of the span that the figures are of."""

    def seconds(self) -> float:
        """For how long requests were made in that span."""
        whole = self.figures.seconds
        return whole if self.load_seconds is None else min(self.load_seconds, whole)

    def of_requests(self) -> dict[str, float]:
        """Figures that take both sides: CPU time and energy for each request, and errors a second."""
        found = self.figures.per_request(self.metrics.get("requests_per_second", 0.0) * self.seconds())
        return found if self.errors is None else found | {"errors_per_second": self.errors / self.seconds()}


class Load(Protocol):
    """What the server is loaded with."""

    def settle(self, seconds: float, gauge: Gauge) -> None:
        """Wait after a switch. Raises Harmful."""

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, gauge: Gauge) -> Told:
        """Make the load once, warm-up included, and measure meanwhile. `rate` 0: as much as possible.

        Raises NapctlError if it fails, or takes too long.
        """

    def primed(self) -> AbstractContextManager[None]:
        """A little of it, so that the server has connections while it is examined."""


@dataclass(frozen=True)
class Step:
    """One cell that is to be measured."""

    position: int
    round: int
    treatment: Treatment
    load: str
    rate: float | None


def schedule(config: RunConfig, treatments: Sequence[Treatment]) -> Iterator[Step]:
    """Every treatment under every load once in each round; the order within a round is random, from the seed."""
    order = random.Random(config.seed)  # noqa: S311 - an order, not a secret
    position = 0
    for number in range(1, config.rounds + 1):
        block = [(rate, treatment) for rate in rates_of(config) for treatment in treatments]
        order.shuffle(block)
        for rate, treatment in block:
            yield Step(position, number, treatment, load_name(rate), rate)
            position += 1


def rates_of(config: RunConfig) -> tuple[float | None, ...]:
    """Those asked for; None stands for live traffic."""
    return config.rates or (None,)


def load_name(rate: float | None) -> str:
    """As it is shown: "rest", "20,000/s", "max", "live"."""
    return "live" if rate is None else "rest" if rate == REST else loadrun.load_name(rate)


def run(
    config: RunConfig,
    treatments: Sequence[Treatment],
    directory: RunDirectory,
    place: Place,
    load: Load,
    gauge: Gauge,
    progress: Progress,
    *,
    repeats: int = 0,
) -> Summary:
    """Measure every cell that the directory does not have yet, sum up, and record that.

    So many cells may be measured once more in all because other work of the machine disturbed the load generator, which
    says nothing of the treatment; each such cell says so. On a quiet machine there are none.

    A treatment that cannot be had here fails its own cells, with the reason; so does a load that fails; one that harmed
    live traffic is not tried again. What was changed is put back after each cell, and when this is interrupted. Raises
    NotTakenBack if that was not possible, and ChangedMeanwhile if somebody else has changed what the treatments change:
    no further cell would be what it is called.
    """
    cells = directory.cells()
    done = {(cell.treatment, cell.load, cell.round) for cell in cells}
    left = [each for each in schedule(config, treatments) if (each.treatment.name, each.load, each.round) not in done]
    harmful = {cell.treatment: cell.failed for cell in cells if cell.harmful}
    for number, step in enumerate(left):
        progress(f"{step.treatment.name} at {step.load}, round {step.round} of {config.rounds}", number, len(left))
        cell, disturbed = _cell(config, step, directory.raw(step.position), place, load, gauge, harmful)
        if disturbed and repeats > 0:
            repeats -= 1
            again, _ = _cell(config, step, directory.raw(step.position), place, load, gauge, harmful)
            cell = cell if again.failed else replace(again, warnings=(*again.warnings, MEASURED_AGAIN))
        directory.append(cell)
    summary = summarise(directory.cells(), config.treatments[0], config.seed)
    directory.write_summary(summary)
    return summary


def _cell(
    config: RunConfig, step: Step, raw: Path, place: Place, load: Load, gauge: Gauge, harmful: dict[str, str]
) -> tuple[Cell, bool]:
    """And whether other work disturbed it."""
    name, started = step.treatment.name, time.time_ns()
    failed = harmful.get(name, "")
    told: Told | None = None
    try:
        if not failed:
            with applied(step.treatment, place):
                load.settle(config.settle_seconds, gauge)
                # The same load for all treatments of a block: what differs between loads is in none of its pairs.
                told = load.measured(step.rate or 0, config.seconds, config.seed + step.round, raw, gauge)
    except (NotTakenBack, ChangedMeanwhile):
        raise
    except Harmful as error:
        failed = (
            f"taken back at once: {error}"
            if step.treatment.changes
            else f"{error}, and {name} changes nothing: it is too low"
        )
        if step.treatment.changes:
            harmful[name] = failed
    except NapctlError as error:
        failed = str(error)
    cell = Cell(
        treatment=step.treatment.name,
        load=step.load,
        asked_per_second=0.0 if step.rate == REST else step.rate or None,
        round=step.round,
        position=step.position,
        started_unix_ns=started,
        seconds=0,
        failed=failed,
        harmful=name in harmful,
    )
    if told is None or failed:
        return cell, False
    figures = told.figures
    estimated, from_what = _estimated(config, figures)
    measured = replace(
        cell,
        seconds=figures.seconds,
        metrics=figures.metrics | told.metrics | told.of_requests() | estimated,
        sources=figures.sources | from_what,
        latency=told.latency,
        polls=figures.polls,
        warnings=(*figures.warnings, *told.warnings),
    )
    return measured, told.disturbed


def _estimated(config: RunConfig, figures: Figures) -> tuple[dict[str, float], dict[str, str]]:
    """Power, where nothing measures it and the user has given what it is idle and busy; labelled as what it is."""
    idle, busy = config.idle_watts, config.busy_watts
    if idle is None or busy is None or "package_watts" in figures.metrics or "platform_watts" in figures.metrics:
        return {}, {}
    watts = idle + (busy - idle) * figures.machine_cpu_share
    source = f"an estimate: {idle:g} W + ({busy:g} W - {idle:g} W) × share of all CPUs that is busy"
    return {"estimated_watts": watts}, {"estimated_watts": source}
