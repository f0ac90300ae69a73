"""An experiment: treatments × loads × rounds, in random order within each round, each cell on disk before the next."""

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from napctl.experiment.meter import CellMeter
from napctl.experiment.run_directory import RunDirectory
from napctl.experiment.treatments import Place, Treatment, applied
from napctl.load import process
from napctl.load.base import REST, Figures, Harmful, Load, Told
from napctl.model.errors import ChangedMeanwhile, NapctlError, NotTakenBack, Unsupported
from napctl.model.experiment import Cell, RunConfig

__all__ = ["MEASURED_AGAIN", "rates_of", "run"]


MEASURED_AGAIN = "repeated: another process disturbed the load generator"

Progress = Callable[[str, str, int, int], None]
"""Called before each cell: the treatment, at which load and in which round, the how manieth of how many."""


@dataclass(frozen=True)
class PlannedCell:
    """One cell that is to be measured."""

    position: int
    round: int
    treatment: Treatment
    load: str
    rate: float | None


def schedule(config: RunConfig, treatments: Sequence[Treatment]) -> Iterator[PlannedCell]:
    """Every treatment under every load once in each round; the order within a round is random, from the seed."""
    order = random.Random(config.seed)  # noqa: S311 - an order, not a secret
    position = 0
    for number in range(1, config.rounds + 1):
        rates = [rate for rate in rates_of(config) if rate != REST or number <= (config.rest_rounds or config.rounds)]
        block = [(rate, treatment) for rate in rates for treatment in treatments]
        order.shuffle(block)
        for rate, treatment in block:
            yield PlannedCell(position, number, treatment, load_name(rate), rate)
            position += 1


def rates_of(config: RunConfig) -> tuple[float | None, ...]:
    """Those asked for; None stands for live traffic."""
    return config.rates or (None,)


def load_name(rate: float | None) -> str:
    """As it is shown: "rest", "20,000/s", "max", "live"."""
    return "live" if rate is None else "rest" if rate == REST else process.load_name(rate)


def run(
    config: RunConfig,
    treatments: Sequence[Treatment],
    directory: RunDirectory,
    place: Place,
    load: Load,
    meter: CellMeter,
    progress: Progress,
    *,
    repeats: int = 0,
) -> None:
    """Measure every cell that the directory does not have yet.

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
    learning = _learning(config, treatments) if left else []
    steps = len(learning) + len(left)
    for number, (treatment, rate) in enumerate(learning):
        progress(treatment.name, f"learns {load_name(rate)}", number, steps)
        _learn(config, treatment, rate, place, load, meter)
    for number, step in enumerate(left, len(learning)):
        progress(step.treatment.name, f"at {step.load}, round {step.round} of {config.rounds}", number, steps)
        cell, disturbed = _cell(config, step, directory.raw(step.position), place, load, meter, harmful)
        if disturbed and repeats > 0:
            repeats -= 1
            again, _ = _cell(config, step, directory.raw(step.position), place, load, meter, harmful)
            cell = cell if again.failed else replace(again, warnings=(*again.warnings, MEASURED_AGAIN))
        directory.append(cell)


def _learning(config: RunConfig, treatments: Sequence[Treatment]) -> list[tuple[Treatment, float]]:
    """Each treatment that adapts under each load once, which is not counted: it goes by what it has learned then."""
    adapting = [each for each in treatments if each.adapt is not None] if config.learn_seconds else []
    return [(treatment, rate) for treatment in adapting for rate in rates_of(config) if rate not in (None, REST)]


def _learn(config: RunConfig, treatment: Treatment, rate: float, place: Place, load: Load, meter: CellMeter) -> None:
    with suppress(Unsupported), applied(treatment, place):  # its cells say why
        load.settle(config.settle_seconds, meter)
        load.measured(rate, config.learn_seconds, config.seed, Path(os.devnull), meter)


def _cell(
    config: RunConfig, step: PlannedCell, raw: Path, place: Place, load: Load, meter: CellMeter, harmful: dict[str, str]
) -> tuple[Cell, bool]:
    """And whether other work disturbed it."""
    name, started = step.treatment.name, time.time_ns()
    failed = harmful.get(name, "")
    told: Told | None = None
    try:
        if not failed:
            with applied(step.treatment, place):
                load.settle(config.settle_seconds, meter)
                # The same load for all treatments of a block: what differs between loads is in none of its pairs.
                told = load.measured(step.rate or 0, config.seconds, config.seed + step.round, raw, meter)
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
