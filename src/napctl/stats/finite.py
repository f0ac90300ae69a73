"""From logarithms back to ratios that can be printed, compared and written as JSON."""

from math import exp

__all__ = ["finite_exp"]


def finite_exp(logarithm: float) -> float:
    """Without overflow: an interval of two pairs may reach beyond all bounds, and JSON has no infinity."""
    return exp(max(-300.0, min(300.0, logarithm)))
