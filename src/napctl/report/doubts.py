"""What makes the figures of a run doubtful: one sentence for each kind, with the cells that it is of. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from napctl.model.experiment import Cell, Comparison
from napctl.model.text import natural
from napctl.stats.paired import FEWEST_BLOCKS

__all__ = ["doubts"]


ACHIEVED = 0.95
"""Of the rate asked for: below that, another load was measured than the one it is called after."""
ENOUGH_BLOCKS = 6
"""With fewer, a machine that jumps between two states can pass for a difference."""


def doubts(cells: Sequence[Cell], loads: Sequence[str], comparisons: Sequence[Comparison]) -> Iterable[str]:
    """All of a run, with the number of cells and which treatments they are of. `loads`: from light to heavy."""
    yield from _few_rounds(cells, comparisons)
    failed: dict[str, list[Cell]] = {}
    doubtful: dict[str, list[Cell]] = {}
    texts: dict[str, set[str]] = {}
    for cell in cells:
        if cell.failed:
            failed.setdefault(cell.failed, []).append(cell)
        for text in cell.warnings:
            kind = re.sub(r"\d[\d.,]*", "#", text)
            doubtful.setdefault(kind, []).append(cell)
            texts.setdefault(kind, set()).add(text)
    for why, those in _most_first(failed):
        yield f"{_of(those, cells)} failed: {why}"
    yield from _off_rate(cells, loads)
    for kind, those in _most_first(doubtful):
        first = min(texts[kind], key=natural)
        yield f"{_of(those, cells)}: {first}" + (", and the like" if len(texts[kind]) > 1 else "")


def _few_rounds(cells: Sequence[Cell], comparisons: Sequence[Comparison]) -> Iterable[str]:
    most: dict[tuple[str, str], int] = {}
    for each in comparisons:
        most[each.load, each.treatment] = max(each.blocks, most.get((each.load, each.treatment), 0))
    blocks = min(most.values(), default=0)
    if blocks < FEWEST_BLOCKS and len({cell.treatment for cell in cells}) > 1:
        yield f"fewer than {FEWEST_BLOCKS} rounds with figures of both: no comparison can be made"
    if FEWEST_BLOCKS <= blocks < ENOUGH_BLOCKS:
        yield (
            f"only {blocks} rounds: a machine that jumps between two states can pass for a difference;"
            f" {ENOUGH_BLOCKS} or more rounds tell them apart"
        )


def _off_rate(cells: Sequence[Cell], loads: Sequence[str]) -> Iterable[str]:
    """Where a load was not the one that it is called after."""
    for load in loads:
        asked = [cell for cell in cells if cell.load == load and not cell.failed]
        short = [cell for cell in asked if _achieved(cell) < ACHIEVED]
        above = [cell for cell in asked if _achieved(cell) > 2 - ACHIEVED]
        if above:
            yield (
                f"{_of(above, asked)} at {load} made more than {(2 - ACHIEVED) * 100:.0f} % of the requests asked for"
                f" (the most {max(map(_achieved, above)) * 100:.0f} %): the load is not what it is called after"
            )
        if short:
            yield (
                f"{_of(short, asked)} at {load} achieved less than {ACHIEVED * 100:.0f} % of the rate asked for"
                f" (the least {min(map(_achieved, short)) * 100:.0f} %): treatments did not have the same load there"
            )


def _most_first(those: dict[str, list[Cell]]) -> list[tuple[str, list[Cell]]]:
    return sorted(those.items(), key=lambda item: (-len(item[1]), item[0]))


def _achieved(cell: Cell) -> float:
    rate = cell.metrics.get("requests_per_second")
    return rate / cell.asked_per_second if rate is not None and cell.asked_per_second else 1.0


def _of(those: Sequence[Cell], among: Sequence[Cell]) -> str:
    """ "3 of 24 cells (base 2, suspend:200us 1)"."""
    counts = Counter(cell.treatment for cell in those)
    who = ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=natural))
    return f"{len(those)} of {len(among)} cells ({who})"
