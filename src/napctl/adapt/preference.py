"""Which of the ways that are known is preferred: the rules of a budget, and what counts as a difference."""

from collections.abc import Sequence
from math import log, sqrt
from typing import Literal

from napctl.adapt.learned import LEAST_KNOWN, LearnedWay, Pool
from napctl.adapt.ways import Way
from napctl.model.errors import BadInput
from napctl.model.value import Value

__all__ = [
    "ENTER",
    "P99",
    "SOONER",
    "STAY",
    "Change",
    "LatencyGoal",
    "Prefer",
    "alike",
    "change",
    "clear",
    "keeps",
    "preferred",
    "safely_beyond",
]

Prefer = Literal["cpu", "latency"]

SAVING = 0.05
"""A way must save this share of the CPU time for each packet to be taken for that."""
SOONER = 0.10
"""Or this share of the p99, where that decides. Histograms are good to as much."""
AFFORDABLE = 1.25
"""Of the least cost: what may be spent where latency is preferred."""
CERTAIN = 2.33
"""Standard errors that a difference must have: chance takes 1 in 100 trials for one."""
CLEAR = 5.0
"""And those that make it worth looking further: each of many trials is compared with what came just before it, which
may have been the worst of many windows."""
ALIKE = 0.2
"""Of the p99: a cure that looks further off than that was one of noise, and does not tell that no other would help."""
DRIFT = 0.02
"""Standard error that more windows do not take away: what is compared was not seen at the same time."""
ENTER = 1.645
"""Standard deviations of a window by which a p99 must lie below the limit: 95 % of windows then keep it."""
STAY = 1.28
"""The same for the way in force, a little less (90 %): what is at the edge does not go to and fro."""
WIDEST = 0.25
"""Beyond that spread (of the logarithm) it is no longer asked for more: a machine so noisy has no way that is safe."""

COST = 0.06
P99 = 0.12
"""Spread of a window's figure (of the logarithm) while few were seen: those of half a second in the lab."""


class LatencyGoal(Value, frozen=True, kw_only=True):
    """What is asked for."""

    ways: tuple[Way, ...]
    """In ascending order, interrupts first: see ways_between()."""
    budget_ns: int
    """Of the p99 of the server-side latency, less what the server needs by itself."""
    prefer: Prefer = "cpu"

    def __post_init__(self) -> None:
        if not self.ways:
            raise BadInput("there is no way of taking packets to choose among")
        if self.budget_ns <= 0:
            raise BadInput(f"the latency budget is {self.budget_ns} ns: a time is longer than 0")


class Change(Value, frozen=True, kw_only=True):
    """From one figure to another: the logarithm of their ratio, and its standard error."""

    mean: float
    error: float

    def gains(self, share: float) -> bool:
        """Whether it is less by that share, and beyond the noise."""
        return self.mean <= log(1 - share) and -self.mean > CERTAIN * self.error

    def is_there(self, errors: float) -> bool:
        """Whether the two differ, to either side, by a tenth and so many standard errors."""
        return abs(self.mean) >= log(1 + SOONER) and abs(self.mean) > errors * self.error


def change(before: Pool, after: Pool, prior: float) -> Change:
    """Between two pools that both have weight."""
    both = before.weight + after.weight
    spread = sqrt((before.weight * before.spread(prior) ** 2 + after.weight * after.spread(prior) ** 2) / both)
    return Change(
        mean=after.mean - before.mean,
        error=sqrt(spread * spread * (1 / before.weight + 1 / after.weight) + DRIFT * DRIFT),
    )


def clear(before: LearnedWay, after: LearnedWay, usual: LearnedWay) -> bool:
    """Whether two ways differ, in what they cost or in latency; `usual` tells the noise here, of which few windows do
    not tell enough."""
    pairs = (
        (before.cost, after.cost, usual.cost.spread(COST)),
        (before.p99, after.p99, usual.p99.spread(P99)),
    )
    return any(change(one, other, noise).is_there(CLEAR) for one, other, noise in pairs if one.weight and other.weight)


def alike(before: LearnedWay, after: LearnedWay, usual: LearnedWay) -> bool:
    """Whether the p99 of two ways that do not differ clearly looks about the same."""
    if not (before.p99.weight and after.p99.weight):
        return True
    looks = change(before.p99, after.p99, usual.p99.spread(P99))
    return abs(looks.mean) < max(log(1 + ALIKE), 1.5 * looks.error)


def keeps(p99: Pool, limit_ns: float, margin: float, prior: float = P99) -> bool:
    """Whether that share of windows lies below the limit: `margin` standard deviations."""
    return p99.mean + margin * min(p99.spread(prior), WIDEST) <= log(limit_ns)


def safely_beyond(p99: Pool, limit_ns: float) -> bool:
    """Whether it breaks the limit, beyond its noise."""
    return p99.weight > 0 and p99.mean - log(limit_ns) > ENTER * min(p99.spread(P99), WIDEST) / sqrt(p99.weight)


def preferred(goal: LatencyGoal, limit_ns: float, cells: Sequence[LearnedWay], now: Way, usual: LearnedWay) -> Way:
    """The best of the ways that are known, or the one in force where none is better beyond the noise.

    The cheapest that keeps the limit; or the quickest of those that keep it and are affordable; or, where none keeps
    it, the least p99, and the cheapest of those that are as good. `usual` tells the noise, as in clear().
    """
    noise = (usual.cost.spread(COST), usual.p99.spread(P99))
    known = [each for each in cells if min(each.cost.weight, each.p99.weight) >= LEAST_KNOWN]
    keeping = [each for each in known if keeps(each.p99, limit_ns, STAY if each.way == now else ENTER, noise[1])]
    if not known:
        return now
    if keeping and goal.prefer == "cpu":
        return _cheapest(keeping, now, noise[0])
    if keeping:
        most = min(each.cost.mean for each in keeping) + log(AFFORDABLE)
        slack = {now: log(1 + SAVING)}  # costs in force are the noise of this minute
        affordable = [each for each in keeping if each.cost.mean <= most + slack.get(each.way, 0.0)]
        return _quickest(affordable, now, noise[1])
    most = min(each.p99.mean for each in known) + log(1 + SOONER)
    quick = [each for each in known if each.p99.mean <= most]
    if any(each.way == now for each in quick):
        return _cheapest(quick, now, noise[0])
    return _quickest(known, now, noise[1])


def _cheapest(cells: Sequence[LearnedWay], now: Way, noise: float) -> Way:
    here = next((each for each in cells if each.way == now), None)
    saving = [each for each in cells if here is None or change(here.cost, each.cost, noise).gains(SAVING)]
    return min(saving, key=lambda each: each.cost.mean).way if saving else now


def _quickest(cells: Sequence[LearnedWay], now: Way, noise: float) -> Way:
    here = next((each for each in cells if each.way == now), None)
    sooner = [each for each in cells if here is None or change(here.p99, each.p99, noise).gains(SOONER)]
    return min(sooner, key=lambda each: each.p99.mean).way if sooner else now
