"""What is saved of something that was measured in windows, two ways by turns."""

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import fmean, stdev

from napctl.model.next_best import Saved
from napctl.stats.student import critical

__all__ = ["saved"]


def saved(before: Sequence[float], after: Sequence[float], alpha: float) -> Saved | None:
    """From windows in pairs, each of one time: traffic that changes saves nothing. None where nothing can be told."""
    pairs = list(zip(before, after, strict=False))
    if len(before) != len(after) or len(pairs) < 2 or min(min(pair) for pair in pairs) <= 0:
        return None
    changes = [log(now) - log(then) for then, now in pairs]
    mean, noise = fmean(changes), critical(alpha, len(pairs) - 1) * stdev(changes) / sqrt(len(pairs))
    return Saved(share=_share(mean), least=_share(mean + noise), most=_share(mean - noise))


def _share(change: float) -> float:
    return 1 - exp(min(change, 700))  # beyond that exp() overflows
