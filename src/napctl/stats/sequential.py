"""The difference that one setting makes, from pairs of windows with and without it: pure statistics.

The unit is the pair: two windows, one after the other, of which one has the setting. A pair gives the logarithm of the
ratio of its two figures; pairs give Student's interval for the mean of those. What drifts slowly is the same in both
windows of a pair; what drifts steadily cancels between a pair and the next, which has the opposite order; and as the
order of each two pairs is drawn at random, nothing periodic can keep in step with it.

Looking after every pair and stopping when the answer is clear gives chance several goes, and so does trying several
settings. The confidence of each look is high enough for both: tests/unit/verify/test_judge.py finds fewer than 1 run in
20 with any wrong verdict by simulation.
"""

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import exp, fsum, log, sqrt
from statistics import NormalDist

from napctl.model.value import Value
from napctl.stats.finite import finite_exp
from napctl.stats.student import critical

__all__ = [
    "CONFIDENCE",
    "EQUAL",
    "FEWEST_PAIRS",
    "MARGIN",
    "MOST_PAIRS",
    "Counted",
    "Interval",
    "Pair",
    "confidence_among",
    "interval",
    "is_look",
    "orders",
    "pairs_needed",
]


CONFIDENCE = 0.99
"""Of the interval at each look, where one setting is tried."""
FEWEST_PAIRS = 4
MOST_PAIRS = 12
MARGIN = 1.1
"""An effect is one if its interval lies beyond this ratio, or its reciprocal."""
EQUAL = 1.2
"""There is none if its interval lies within this ratio and its reciprocal, where much more was due (expected.py)."""


def confidence_among(settings: int) -> float:
    """The same where so many are: each has its share of the chance of being wrong (Bonferroni).

    Holm's steps, which compare takes, need all figures at once; here the windows of one setting end before the next.
    """
    return 1 - (1 - CONFIDENCE) / settings


class Counted(Value, frozen=True, kw_only=True):
    """One window of one arm: how many events, in how much of what they are counted against."""

    events: float
    per: float
    """Packets, or seconds."""


Pair = tuple[Counted, Counted]
"""With the setting, and without it."""


class Interval(Value, frozen=True, kw_only=True):
    """A ratio, and where it lies with the given confidence."""

    ratio: float
    low: float
    high: float

    @property
    def below(self) -> bool:
        """Less than 1 by more than the margin."""
        return self.high < 1 / MARGIN

    @property
    def above(self) -> bool:
        """More than 1 by more than the margin."""
        return self.low > MARGIN

    @property
    def equal(self) -> bool:
        """1, give or take what nobody would set a device for."""
        return self.low > 1 / EQUAL and self.high < EQUAL


def orders(seed: int) -> Iterator[bool]:
    """For each pair whether the window with the setting comes first: of each two pairs one, at random which."""
    drawn = random.Random(seed)  # noqa: S311 - an order, not a secret
    while True:
        first = drawn.random() < 0.5
        yield first
        yield not first


def is_look(pairs: int) -> bool:
    """Whether to look after so many pairs: after each up to MOST_PAIRS, then ever more seldom."""
    looks = float(MOST_PAIRS)
    while int(looks) < pairs:
        looks *= 1.25
    return pairs <= MOST_PAIRS or pairs == int(looks)


def interval(pairs: Sequence[Pair], confidence: float = CONFIDENCE) -> Interval | None:
    """The ratio of events per unit, with the setting to without it. None for fewer than two pairs that can be used.

    Counts below 0 are none, and windows without anything to count against say nothing.

    Student's interval of the mean log ratio; but never narrower than the noise of counting allows: few and equal counts
    are no proof of steadiness. Half an event is added to each count, as the logarithm of none is infinite.
    """
    usable = [pair for pair in pairs if all(each.per > 0 and each.events >= 0 for each in pair)]
    if len(usable) < 2:
        return None
    logs = [log((on.events + 0.5) / on.per) - log((off.events + 0.5) / off.per) for on, off in usable]
    mean = fsum(logs) / len(logs)
    error = sqrt(fsum((each - mean) ** 2 for each in logs) / (len(logs) * (len(logs) - 1)))
    counting = sqrt(sum(1 / (on.events + 0.5) + 1 / (off.events + 0.5) for on, off in usable)) / len(usable)
    half = max(error * critical(1 - confidence, len(logs) - 1), counting * _normal((1 + confidence) / 2))
    return Interval(ratio=exp(mean), low=finite_exp(mean - half), high=finite_exp(mean + half))


def pairs_needed(found: Interval, pairs: int) -> int:
    """How many pairs would tell whether there is an effect, if they vary like those so far."""
    half = log(found.high / found.low) / 2
    room = max(log(EQUAL) - abs(log(found.ratio)), abs(log(found.ratio)) - log(MARGIN), log(MARGIN) / 4)
    return max(pairs + 1, round(pairs * (half / room) ** 2 + 0.5))


@lru_cache(maxsize=256)
def _normal(share: float) -> float:
    return NormalDist().inv_cdf(share)
