"""One metric of two treatments, paired by block: the test, its interval and its power. Pure arithmetic.

The unit is the block (a round): both treatments were measured in it, in random order. What drifts between rounds is
the same in both and cancels. If the treatments do not differ, a block's log ratio is as likely to be -x as x, whatever
form the noise has: the two cells could have been swapped.

Why Student's t on log ratios. A rank or sign test on n blocks gives no p-value below 2/2^n: 0.125 for 4 blocks, 0.008
for 8. After a correction for dozens of comparisons nothing could be found. t uses the size of the differences too. What
it asks for in return, noise of about normal form, is guarded so:

- Wild rounds hide differences, but make none: with one cell in ten 30 % off, t errs less often than it may. To hide
  fewer, the mean is trimmed from 12 blocks on (Yuen 1974, doi:10.1093/biomet/61.1.165); how much depends on the number
  of blocks alone. Yuen's h - 1 degrees of freedom are too many far out in the tails (p = 0.0005 came up 1.5 times too
  often). With ceil(g / 2) fewer, p-values down to 0.0001 are exact within 1.1 times, by simulation of a million cases.
- Few and equal figures are no proof of steadiness: the spread is not taken to be less than FINEST, nor than one step
  where the figures of a treatment come in steps (rounded, or from the buckets of a histogram).
- The robustness check: at least AGREEING of the blocks must differ the way that the mean does.

What is not guarded: with 4 blocks, a machine that jumps between two states shows all four differences alike in 0.8 % of
comparisons. docs/statistics.md has the error rates.
"""

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from math import ceil, exp, fsum, isfinite, lgamma, log, log1p, sqrt
from statistics import median

from napctl.model.value import Value
from napctl.stats.finite import finite_exp
from napctl.stats.student import critical, two_sided

__all__ = ["FEWEST_BLOCKS", "FINEST", "Paired", "paired", "trim"]


FEWEST_BLOCKS = 3
"""With fewer there is no verdict."""
FINEST = 0.005
"""Least standard deviation of a log ratio that is believed: no machine repeats itself better than by half a percent."""
AGREEING = 2 / 3
"""Share of the blocks that must differ the way that the mean does."""
_POWER_NORMAL = 0.8416212335729143
"""The normal quantile of a power of 0.8."""
_EQUAL = 1e-9
"""Log ratio below which two figures are one and the same."""


class Paired(Value, frozen=True, kw_only=True):
    """What blocks tell of treatment by reference. All but `ratio` and `stand_in` in terms of the log ratio."""

    ratio: float
    """Median over blocks."""
    mean: float
    error: float
    """Standard error of the mean."""
    freedom: int
    blocks: int
    robust: bool
    """Enough blocks differ the way that the mean does."""
    stand_in: float | None
    """What stood for 0 in the ratios; 0.0: all figures were 0; None: none was."""

    @property
    def p(self) -> float:
        """Of a difference as large by chance, either way; 1 for one that is not robust."""
        return two_sided(self.mean / self.error, self.freedom) if self.robust and self.error else 1.0

    def interval(self, alpha: float) -> tuple[float, float]:
        """Where the ratio lies with a confidence of 1 - alpha. Contains 1 for one that is not robust."""
        half = self.error * critical(alpha, self.freedom)
        low, high = min(self.ratio, finite_exp(self.mean - half)), max(self.ratio, finite_exp(self.mean + half))
        return (low, high) if self.robust else (min(low, 1.0), max(high, 1.0))

    def smallest(self, alpha: float) -> float:
        """The smallest increase, as a share of the reference, that is found at `alpha` with a probability of 0.8.

        The matching decrease is 1 - 1 / (1 + smallest). Of t's denominator a normal with the same mean and variance is
        taken (Johnson & Welch 1940): the power comes out between 0.800 and 0.804.
        """
        t, n = critical(alpha, self.freedom), self.freedom
        middle = sqrt(2 / n) * exp(lgamma((n + 1) / 2) - lgamma(n / 2))
        shift = t * middle + _POWER_NORMAL * sqrt(1 + t * t * (1 - middle * middle))
        return finite_exp(shift * self.error) - 1


def paired(blocks: Sequence[tuple[float, float]]) -> Paired | None:
    """From (treatment, reference) of each block; None for fewer than FEWEST_BLOCKS. Their order has no meaning.

    Blocks with a figure that is negative or no number are left out. A ratio to 0 is without bound, and a difference has
    no share of 0; so half of the smallest figure that is not 0 stands for 0. All figures 0: ratio 1, nothing varies.
    """
    known = [(a, b) for a, b in blocks if isfinite(a) and isfinite(b) and a >= 0 and b >= 0]
    n = len(known)
    if n < FEWEST_BLOCKS:
        return None
    figures = sorted(log(figure) for pair in known for figure in pair if figure > 0)
    if not figures:
        return Paired(ratio=1.0, mean=0.0, error=0.0, freedom=n - 1, blocks=n, robust=False, stand_in=0.0)
    nothing = figures[0] - log(2)
    zeros = len(figures) < 2 * n
    logs = sorted(_log(a, nothing) - _log(b, nothing) for a, b in known)
    trimmed = trim(n)
    kept = logs[trimmed : n - trimmed]
    mean = fsum(kept) / len(kept)
    drawn_in = [kept[0]] * trimmed + kept + [kept[-1]] * trimmed
    centre = fsum(drawn_in) / n
    squares = max(fsum((each - centre) ** 2 for each in drawn_in), (n - 1) * max(FINEST, _step(known, nothing)) ** 2)
    agree = sum(each * mean > 0 for each in logs)
    return Paired(
        ratio=finite_exp(median(logs)),
        mean=mean,
        error=sqrt(squares / (len(kept) * (len(kept) - 1))),
        freedom=len(kept) - 1 - ceil(trimmed / 2),
        blocks=n,
        robust=agree >= AGREEING * n,
        stand_in=exp(nothing) if zeros else None,
    )


def trim(blocks: int) -> int:
    """How many log ratios the mean leaves out at either end: one for each four blocks beyond eight."""
    return max(0, (blocks - 8) // 4)


def _step(blocks: Sequence[tuple[float, float]], nothing: float) -> float:
    """The step in which figures come, as a log ratio; 0 if none are equal, as figures without steps never are.

    Within one treatment it is the least gap. Between two treatments there is no telling a step from a difference: what
    both share is the place of their last decimal digit.
    """
    steps = [0.0]
    for side in zip(*blocks, strict=True):
        logs = sorted(_log(figure, nothing) for figure in side)
        gaps = [after - before for before, after in pairwise(logs)]
        if any(gap <= _EQUAL for gap in gaps):
            steps += [min(gap for gap in gaps if gap > _EQUAL)] if max(gaps) > _EQUAL else []
    figures = [figure for pair in blocks for figure in pair if figure > 0]
    if len(set(figures)) < len(figures):
        steps.append(log1p(min(map(_last_place, figures)) / min(figures)))
    return max(steps)


def _last_place(figure: float) -> float:
    """Of the shortest decimal number that stands for it: 0.01 of 1.23, 10 of 1230."""
    exponent = Decimal(repr(figure)).normalize().as_tuple().exponent
    assert isinstance(exponent, int)  # as it is finite
    return 10.0**exponent


def _log(figure: float, nothing: float) -> float:
    return log(figure) if figure > 0 else nothing
