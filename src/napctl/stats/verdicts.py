"""From the cells of a run to what may be said of it: estimates, comparisons with the reference, bounds, warnings. Pure.

Each comparison is one test of paired.py. A run makes metrics × loads × treatments of them, and the chance that *any*
of its "better", "worse" and "different" is wrong is kept below ALPHA: Holm's step-down procedure in its weighted form
(Holm 1979, Scand. J. Statist. 6:65), which is valid however metrics depend on each other. The weights are fixed
beforehand: what an experiment is made for (HEADLINE) has 10, what explains it 1. So the many explaining metrics cost
little power.

The intervals hold all at once, with 95 %, and agree with the verdicts (after Strassburger & Bretz 2008,
doi:10.1002/sim.3338): of a difference that was found, Bonferroni's interval, but no further than 1; of the others, that
of the step at which Holm's procedure stopped.

Error rates over 2,000 simulated runs each, of 20 comparisons (of 180), for 4, 6, 8 and 12 rounds; docs/statistics.md
has more, and says how the noise was made:
- nothing differs, noise of 1 to 8 % and wild rounds, anything found: 2.4, 1.4, 1.6, 1.0 % (2.2, 1.0, 1.0, 1.1 %);
- a slowdown by 10 % under noise of 3 %, found in any latency: 58, 96, 100, 100 % (13, 58, 92, 100 %);
  with 5 rounds 86 % (32 %).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import isfinite
from random import Random

from napctl.model.experiment import (
    MAX,
    NOTHING,
    Cell,
    Comparison,
    Estimate,
    Judgement,
    SavingsBound,
    Summary,
    saved_metric,
)
from napctl.model.metrics import ALL, BY_NAME
from napctl.model.text import natural
from napctl.model.value import Value
from napctl.stats.paired import Paired, paired

__all__ = ["AGAINST_BUSY", "ALPHA", "compare", "loads_of", "summarise", "treatments_of"]


ALPHA = 0.05
"""The chance that any verdict of a run is wrong, if nothing differs where it is given."""
HEADLINE = ("latency_p50_us", "latency_p99_us", "cpu_us_per_request", "joules_per_request")
"""What an experiment is made for; and cpu_share, or requests_per_second under the load "max"."""
WEIGHT = 10
RESAMPLES = 5000
IDLE_CPU_SHARE = 0.02
"""Below it there is nothing to save, and shares of it say nothing."""
POLLS_ITSELF = 0.05
"""From this share of the polls on a reference takes packets itself, in system calls of which nobody measures the part
that is for packets: there is no bound then."""

BUSY = "fullbusy"
AGAINST_BUSY = (*HEADLINE, "cpu_share", "requests_per_second")

Wanted = tuple[str, str, str, tuple[str, ...] | None]
"""Load, treatment, reference, and which metrics; None: all."""
Figures = dict[str, float]
Group = dict[int, Figures]
"""By round."""


class _Test(Value, frozen=True, kw_only=True):
    treatment: str
    reference: str
    load: str
    metric: str
    found: Paired

    @property
    def weight(self) -> int:
        special = "requests_per_second" if self.load == MAX else "cpu_share"
        return WEIGHT if self.metric in HEADLINE or self.metric == special else 1


class _Verdict(Value, frozen=True, kw_only=True):
    differs: bool
    low: float
    high: float
    smallest: float


def summarise(cells: Sequence[Cell], reference: str, seed: int) -> Summary:
    """The figures of all that may be said of a run; report/summary.py has the words. `seed`: of the bootstrap.

    Neither the order of cells nor the numbers of rounds matter.
    Cells that failed are left out; so is, for one metric, a block in which it is missing. Of cells measured twice
    the later counts. Where fewer than 3 blocks are left there is no Comparison. Raises ValueError without a cell of the
    reference.
    """
    if not any(cell.treatment == reference for cell in cells):
        raise ValueError(f"no cell of {reference}, which the others are compared with")
    groups = _groups(cells)
    loads = loads_of(cells)
    treatments = treatments_of(cells, reference)
    estimates = tuple(
        _estimate(treatment, load, metric, groups.get((load, treatment), {}), seed)
        for load in loads
        for treatment in treatments
        for metric in _metrics(groups.get((load, treatment), {}))
    )
    wanted = [(load, name, reference, None) for load in loads for name in treatments[1:]]
    comparisons = _compared(groups, wanted + _between(treatments, loads))
    bounds = tuple(_bounds(loads, reference, estimates, comparisons))
    return Summary(
        estimates=estimates,
        comparisons=tuple(each for each in comparisons if each.reference == reference),
        bounds=bounds,
        between=tuple(each for each in comparisons if each.reference != reference),
    )


def compare(cells: Sequence[Cell], treatments: str | Sequence[str], reference: str) -> tuple[Comparison, ...]:
    """One treatment, or each of several, with any other as reference, under every load; corrected for all together.

    Whoever calls this several times, and picks, has to expect more errors than one call makes. Raises ValueError if
    there is no cell of one of them.
    """
    treatments = [treatments] if isinstance(treatments, str) else treatments
    if missing := {*treatments, reference} - {cell.treatment for cell in cells}:
        raise ValueError(f"no cell of {', '.join(sorted(missing))}")
    loads = loads_of(cells)
    return _compared(_groups(cells), [(load, name, reference, None) for load in loads for name in treatments])


def _between(treatments: Sequence[str], loads: Sequence[str]) -> list[Wanted]:
    """What is compared beside the reference: suspension with full busy polling, whose latency it is said to have for
    less CPU time."""
    suspended = [name for name in treatments[1:] if name.startswith("suspend:")]
    return [(load, name, BUSY, AGAINST_BUSY) for load in loads for name in suspended if BUSY in treatments[1:]]


def _compared(groups: dict[tuple[str, str], Group], wanted: Sequence[Wanted]) -> tuple[Comparison, ...]:
    tests = [test for each in wanted for test in _tests(groups, *each)]
    return tuple(
        Comparison(
            treatment=test.treatment,
            reference=test.reference,
            load=test.load,
            metric=test.metric,
            ratio=test.found.ratio,
            low=verdict.low,
            high=verdict.high,
            judgement=_judgement(test.metric, test.found.ratio) if verdict.differs else NOTHING,
            smallest=verdict.smallest,
            blocks=test.found.blocks,
            stand_in=test.found.stand_in,
        )
        for test, verdict in zip(tests, _holm(tests, ALPHA), strict=True)
    )


def _groups(cells: Iterable[Cell]) -> dict[tuple[str, str], Group]:
    groups: dict[tuple[str, str], Group] = {}
    for cell in sorted(cells, key=lambda each: each.position):
        if not cell.failed:
            figures = {name: figure for name, figure in cell.metrics.items() if isfinite(figure)}
            groups.setdefault((cell.load, cell.treatment), {})[cell.round] = figures
    return groups


def treatments_of(cells: Iterable[Cell], reference: str) -> list[str]:
    """The reference first."""
    return [reference, *sorted({cell.treatment for cell in cells} - {reference}, key=natural)]


def loads_of(cells: Iterable[Cell]) -> list[str]:
    """From light to heavy."""
    asked = {cell.load: cell.asked_per_second for cell in cells}
    return sorted(asked, key=lambda load: (asked[load] is None, asked[load] or 0, natural(load)))


def _metrics(group: Group) -> list[str]:
    """Those that any round has: known ones in their order, then others."""
    there = {name for figures in group.values() for name in figures}
    return [each.name for each in ALL if each.name in there] + sorted(there - set(BY_NAME))


def _tests(
    groups: dict[tuple[str, str], Group], load: str, treatment: str, reference: str, metrics: Sequence[str] | None
) -> Iterable[_Test]:
    ours, theirs = groups.get((load, treatment), {}), groups.get((load, reference), {})
    for metric in _metrics(ours):
        if metrics is not None and metric not in metrics:
            continue
        if metric in BY_NAME and not BY_NAME[metric].compared:
            continue
        blocks = [
            (ours[block][metric], theirs[block][metric])
            for block in ours
            if block in theirs and metric in ours[block] and metric in theirs[block]
        ]
        if found := paired(blocks):
            yield _Test(treatment=treatment, reference=reference, load=load, metric=metric, found=found)


def _holm(tests: Sequence[_Test], alpha: float) -> list[_Verdict]:
    """Which differ, in the order of `tests`: the strongest first, each at its weight's share among those still left.

    The verdicts may spend again what those before them have spent (Holm 1979). The intervals may not, if all are to
    hold at once: each has its weight's share of the whole alpha (Bonferroni).
    """
    total = left = sum(test.weight for test in tests)
    strength = [test.found.p / test.weight for test in tests]
    differs = [False] * len(tests)
    for index in sorted(range(len(tests)), key=strength.__getitem__):
        if strength[index] > alpha / left:
            break
        differs[index] = True
        left -= tests[index].weight
    verdicts = []
    for test, beyond in zip(tests, differs, strict=True):
        low, high = test.found.interval(alpha * test.weight / total)
        if beyond:  # found at a later step: Bonferroni's interval may reach a little beyond 1, the verdict does not
            low, high = (max(low, 1.0), high) if test.found.ratio > 1 else (low, min(high, 1.0))
        verdicts.append(
            _Verdict(
                differs=beyond,
                low=low,
                high=high,
                smallest=test.found.smallest(alpha * test.weight / (total if beyond else left)),
            )
        )
    return verdicts


def _judgement(metric: str, ratio: float) -> Judgement:
    better = BY_NAME[metric].better if metric in BY_NAME else ""
    if not better:
        return "different"
    return "better" if (better == "higher") == (ratio > 1) else "worse"


def _estimate(treatment: str, load: str, metric: str, group: Group, seed: int) -> Estimate:
    figures = sorted(each[metric] for each in group.values() if metric in each)
    n = len(figures)
    low, high = _bootstrap(figures, seed)
    return Estimate(
        treatment=treatment,
        load=load,
        metric=metric,
        median=_middle(figures, (n - 1) // 2, n // 2),
        low=low,
        high=high,
        rounds=n,
    )


def _bootstrap(figures: Sequence[float], seed: int) -> tuple[float, float]:
    """95 % percentile interval of the median. With fewer than 6 rounds hardly more than the least and the most."""
    medians = sorted(
        (_middle(figures, below, above), times) for (below, above), times in _middles(len(figures), seed).items()
    )
    ends = []
    for share in (0.025, 0.975):
        seen = 0
        for value, times in medians:
            seen += times
            if seen >= share * RESAMPLES:
                ends.append(value)
                break
    return ends[0], ends[1]


def _middle(figures: Sequence[float], below: int, above: int) -> float:
    low, high = figures[below], figures[above]
    return low + (high - low) / 2 if isfinite(high - low) else low / 2 + high / 2


@lru_cache(maxsize=128)
def _middles(rounds: int, seed: int) -> Counter[tuple[int, int]]:
    """How often which two ranks are in the middle when so many rounds are drawn with replacement."""
    drawn = Random(seed)  # noqa: S311 - a resample, not a secret
    found: Counter[tuple[int, int]] = Counter()
    for _ in range(RESAMPLES):
        ranks = sorted(drawn.choices(range(rounds), k=rounds))
        found[ranks[(rounds - 1) // 2], ranks[rounds // 2]] += 1
    return found


def _bounds(
    loads: Sequence[str], reference: str, estimates: Sequence[Estimate], comparisons: Sequence[Comparison]
) -> Iterable[SavingsBound]:
    busy, polled = (
        {each.load: each.median for each in estimates if (each.treatment, each.metric) == (reference, metric)}
        for metric in ("cpu_share", "server_poll_share")
    )
    for load in loads:
        if busy.get(load, 1.0) < IDLE_CPU_SHARE:
            continue
        of_cpu = saved_metric(load)
        if polled.get(load, 0.0) > POLLS_ITSELF:
            continue  # what it takes in its own system calls nobody has counted
        for each in estimates:
            if (each.load, each.treatment, each.metric) == (load, reference, "network_cpu_share"):
                saved = {
                    other.treatment: 1 - other.ratio
                    for other in comparisons
                    if (other.load, other.metric, other.reference) == (load, of_cpu, reference)
                }
                yield SavingsBound(load=load, network_cpu_share=each.median, saved_share=saved)
