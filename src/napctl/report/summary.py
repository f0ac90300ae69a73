"""What may be said of a run: the figures of stats/verdicts.py, and the words for them."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from napctl.experiment.run_directory import RunDirectory
from napctl.model.energy import Energy
from napctl.model.errors import BadInput
from napctl.model.experiment import Cell, RunConfig, Summary
from napctl.model.value import Value
from napctl.report.doubts import doubts
from napctl.report.sentences import sentences
from napctl.stats import verdicts

__all__ = ["Run", "read_run", "sum_up", "summarise", "worded"]


class Run(Value, frozen=True, kw_only=True):
    """All of a run, as it was read."""

    config: RunConfig
    machine: Any
    cells: tuple[Cell, ...]
    summary: Summary
    baseline: Energy | None = None
    """What the machine used before the first cell; None: nobody tried to measure it."""


def summarise(cells: Sequence[Cell], reference: str, seed: int) -> Summary:
    """As stats.verdicts.summarise(), with its sentences and warnings. Raises ValueError as that does."""
    return worded(verdicts.summarise(cells, reference, seed), cells, reference)


def worded(found: Summary, cells: Sequence[Cell], reference: str) -> Summary:
    """Figures with the sentences and warnings that belong to them."""
    loads, treatments = verdicts.loads_of(cells), verdicts.treatments_of(cells, reference)
    comparisons = (*found.comparisons, *found.between)
    return replace(
        found,
        warnings=tuple(doubts(cells, loads, comparisons)),
        sentences=sentences(reference, treatments[1:], loads, found.estimates, comparisons, found.bounds),
    )


def sum_up(directory: RunDirectory) -> Summary:
    """Of all cells that the directory has, and record it there. Raises BadInput where nothing can be said."""
    config = directory.config()
    try:
        summary = summarise(directory.cells(), config.treatments[0] if config.treatments else "", config.seed)
    except ValueError as error:
        raise BadInput(f"{directory.path}: nothing to report: {error}") from None
    directory.write_summary(summary)
    return summary


def read_run(directory: RunDirectory) -> Run:
    """All of it; summed up now if it was not before, without writing that."""
    config, cells = directory.config(), directory.cells()
    summary = directory.summary()
    if summary is None:
        try:
            summary = summarise(cells, config.treatments[0] if config.treatments else "", config.seed)
        except ValueError as error:
            raise BadInput(f"{directory.path}: nothing to report: {error}") from None
    return Run(config=config, machine=directory.machine(), cells=cells, summary=summary, baseline=directory.baseline())
