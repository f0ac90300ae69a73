"""The order in which the ways of taking packets came out where they were published, and whether a run has it too.

The claims are those of the work that brought IRQ suspension into Linux (martinkarsten/irqsuspend, commit d59592c, and
the cover letter of the patches), measured with memcached. Another server, load or machine may well differ: then the run
says so, and what was seen.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Literal

from napctl.model.experiment import NOTHING, Cell, Comparison
from napctl.model.metrics import BY_NAME
from napctl.model.value import Value
from napctl.report.sentences import HOPELESS, Medians, against, percent, range_text, smallest_text
from napctl.stats.verdicts import _compared as compared
from napctl.stats.verdicts import _groups as by_load_and_treatment

Holds = Literal["holds", "does not hold", "cannot be told"]


class Ordering(Value, frozen=True, kw_only=True):
    """Whether treatments come out in the order that was published for them."""

    metric: str
    load: str
    treatments: tuple[str, ...]
    """Those of the claim that the run has, the least first."""
    holds: Holds
    sentence: str
    """The claim, whether it holds, and the figures."""


class Claim(Value, frozen=True, kw_only=True):
    """Treatments in the order of a metric, the least first."""

    metric: str
    treatments: tuple[str, ...]
    at_light_load_only: bool = False


CLAIMS = (
    Claim(metric="cpu_share", treatments=("base", "suspend:20us", "fullbusy"), at_light_load_only=True),
    Claim(metric="latency_p50_us", treatments=("fullbusy", "suspend:20us", "suspend:200us")),
    Claim(metric="latency_p50_us", treatments=("suspend:200us", "defer:200us")),
)
EXPLAINING = (
    "cpu_share",
    "server_poll_share",
    "packets_per_poll",
    "interrupts_per_second",
    "context_switches_per_second",
)
"""What tells why an order does not hold."""

LIGHT_CPU_SHARE = 0.6
"""With interrupts; a load beyond is not light."""

Table = Mapping[tuple[str, str, str, str], Comparison]
"""By load, metric, treatment and reference."""


class Pair(Value, frozen=True, kw_only=True):
    """Two treatments that a claim sets beside each other."""

    load: str
    metric: str
    less: str
    more: str


def pairs(treatments: Sequence[str], rated: Sequence[str]) -> list[Pair]:
    """All pairs that must be compared. `rated`: loads with a rate that was asked for, from light to heavy."""
    return [
        Pair(load=load, metric=claim.metric, less=less, more=more)
        for claim, load, there in _claims(treatments, rated)
        for less, more in pairwise(there)
    ]


def orderings(cells: Sequence[Cell]) -> tuple[Ordering, ...]:
    """Of each claim that this run can speak of, whether it holds here; with what was seen where it does not.

    All comparisons that it takes are corrected together, as those of a run are.
    """
    groups = by_load_and_treatment(cells)
    treatments = sorted({cell.treatment for cell in cells})
    asked = {cell.load: cell.asked_per_second for cell in cells if cell.asked_per_second}
    rated = sorted(asked, key=lambda load: asked[load] or 0)
    comparisons = compared(
        groups, [(each.load, each.less, each.more, (each.metric,)) for each in pairs(treatments, rated)]
    )
    medians = {
        (load, treatment, metric): median(figures[metric] for figures in group.values() if metric in figures)
        for (load, treatment), group in groups.items()
        for metric in {name for figures in group.values() for name in figures}
    }
    table = {(each.load, each.metric, each.treatment, each.reference): each for each in comparisons}
    return tuple(_ordering(claim, load, there, table, medians) for claim, load, there in _claims(treatments, rated))


def _claims(treatments: Sequence[str], rated: Sequence[str]) -> Iterator[tuple[Claim, str, list[str]]]:
    """Each claim, under each load that it is made for, with those of its treatments that the run has."""
    for claim in CLAIMS:
        there = [name for name in claim.treatments if name in treatments]
        if len(there) > 1:
            for load in rated[:1] if claim.at_light_load_only else rated:
                yield claim, load, there


def _ordering(claim: Claim, load: str, there: Sequence[str], table: Table, medians: Medians) -> Ordering:
    metric = BY_NAME[claim.metric]
    busy = medians.get((load, "base", "cpu_share"), 0.0)
    if claim.at_light_load_only and busy > LIGHT_CPU_SHARE:
        chain = " < ".join(there)
        sentence = (
            f"{metric.title} at a light load: {chain} cannot be told: at {load} base has {percent(busy)} already."
        )
        return Ordering(
            metric=claim.metric, load=load, treatments=tuple(there), holds="cannot be told", sentence=sentence
        )
    found = {(less, more): _holds(table, load, claim.metric, less, more, medians) for less, more in pairwise(there)}
    verdicts = {holds for holds, _ in found.values()}
    holds: Holds = (
        "does not hold" if "does not hold" in verdicts else "cannot be told" if len(verdicts) > 1 else verdicts.pop()
    )
    details = [f"{less} < {more}{text}" for (less, more), (_, text) in found.items()]
    if len(there) == 2:
        sentence = f"{metric.title} at {load}: {there[0]} < {there[1]} {holds}{next(iter(found.values()))[1]}"
    else:
        sentence = f"{metric.title} at {load}: {' < '.join(there)} {holds}: {'; '.join(details)}"
    for (less, more), (verdict, _) in found.items():
        if verdict == "does not hold":
            sentence += f". What was seen there, {less} against {more}: {_seen(load, less, more, medians)}"
    return Ordering(metric=claim.metric, load=load, treatments=tuple(there), holds=holds, sentence=sentence + ".")


def _holds(table: Table, load: str, metric: str, less: str, more: str, medians: Medians) -> tuple[Holds, str]:
    """Whether the first has less, and the figures that tell so."""
    forth, back = table.get((load, metric, less, more)), table.get((load, metric, more, less))
    each = forth or back
    if each is None:
        return "cannot be told", " (fewer than 3 rounds have figures of both)"
    figures = against(medians[load, less, metric], medians[load, more, metric], BY_NAME[metric])
    if each.judgement == NOTHING:
        could = "too noisy to find any" if each.smallest >= HOPELESS else f"could have found {smallest_text(each)}"
        return "cannot be told", f" ({figures}: {NOTHING}, {could})"
    low, high = (each.low, each.high) if forth else (1 / each.high, 1 / each.low)
    interval = "" if each.stand_in is not None else f", {range_text(low, high)} it"
    return "holds" if (each.ratio < 1) == (forth is not None) else "does not hold", f" ({figures}{interval})"


def _seen(load: str, less: str, more: str, medians: Medians) -> str:
    """What explains a difference, of both."""
    told = []
    for name in EXPLAINING:
        ours, theirs = medians.get((load, less, name)), medians.get((load, more, name))
        if ours is not None and theirs is not None:
            told.append(f"{BY_NAME[name].title} {against(ours, theirs, BY_NAME[name])}")
    return ", ".join(told) or "nothing that explains it was measured"
