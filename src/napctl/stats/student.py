"""Student's distribution: what lies in its tails, and where they begin."""

from functools import lru_cache
from math import exp, isfinite, lgamma, log

__all__ = ["critical", "two_sided"]


def two_sided(t: float, freedom: int) -> float:
    """The share of Student's distribution that lies beyond -t and t."""
    return _beta(freedom / (freedom + t * t), freedom / 2) if isfinite(t) else 0.0


@lru_cache(maxsize=4096)
def critical(alpha: float, freedom: int) -> float:
    """t such that a share `alpha` of Student's distribution lies beyond -t and t."""
    low, high = 0.0, 1.0
    while two_sided(high, freedom) > alpha:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > alpha else (low, middle)
    return high


def _beta(x: float, a: float) -> float:
    """Regularised incomplete beta function I_x(a, 1/2), by its continued fraction (DLMF 8.17.22, Lentz's method)."""
    b = 0.5
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _fraction(1 - x, b, a)
    return _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    front = exp(a * log(x) + b * log(1 - x) + lgamma(a + b) - lgamma(a) - lgamma(b)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 300):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            c, d = 1 + term / c, 1 / (1 + term * d)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * value
