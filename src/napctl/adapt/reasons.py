"""Why the way of taking packets is changed, or not: one clause each, with its figures."""

from math import exp
from typing import Literal

from napctl.adapt.learned import LearnedWay, Pool
from napctl.adapt.ways import Way
from napctl.model.units import duration_text, figure

__all__ = [
    "Kind",
    "better",
    "broken",
    "cure",
    "helped",
    "load_changed",
    "none_keeps",
    "taken_back",
    "trial",
]

Kind = Literal["load", "budget", "cure", "back", "better", "trial"]
"""Of a change. At once, whenever the last one was: the load is another, a broken budget (for a way that is known to
keep it, or, as a cure, for one that was not tried), back from what did not help. At most once in ten seconds: a way
that is known to be better, a trial of one that might be."""


def load_changed(load: float, there: LearnedWay) -> str:
    """At another octave of load."""
    return f"the load is now {load:,.0f} packets/s: there {there.way} has {_p99(there.p99)} and {_cost(there.cost)}"


def broken(here: LearnedWay, there: LearnedWay, limit: float, budget_ns: int) -> str:
    """Another way is known to do better."""
    return f"{_p99(here.p99)}, {_allowed(limit, budget_ns)}; under {there.way} it had {_us(there.p99)} µs"


def cure(here: LearnedWay, target: Way, limit: float, budget_ns: int) -> str:
    """What was not tried yet may do better."""
    return f"{_p99(here.p99)} under {here.way}, {_allowed(limit, budget_ns)}; trying {target}"


def better(here: LearnedWay, there: LearnedWay) -> str:
    """Known to cost less, or to be quicker."""
    return f"known to be better at this load: {_against(here, there)}"


def trial(here: LearnedWay, target: Way) -> str:
    """Nothing is known."""
    return f"trying {target} at this load, where {here.way} has {_p99(here.p99)} and {_cost(here.cost)}"


def helped(before: LearnedWay, after: LearnedWay) -> str:
    """A new way stays."""
    return f"stays with {after.way}: {_against(before, after)}"


def taken_back(before: LearnedWay, after: LearnedWay, limit: float) -> str:
    """A new way goes."""
    if not after.cost.weight:
        return f"{after.way} could not be measured"
    over = f" (at most {limit / 1e3:,.0f} µs)" if after.p99.weight and after.p99.typical > limit else ""
    return f"{after.way} did not help: {_against(before, after)}{over}"


def none_keeps(here: LearnedWay, tried: int, limit: float, budget_ns: int) -> str:
    """What there is, then."""
    of = f", the best of {tried} tried" if tried > 1 else ""
    return f"no way keeps the budget at this load: {_p99(here.p99)} under {here.way}{of}; {_allowed(limit, budget_ns)}"


def _against(before: LearnedWay, after: LearnedWay) -> str:
    cost = 100 * (exp(after.cost.mean - before.cost.mean) - 1)
    words = f"{abs(cost):.0f} % {'less' if cost < 0 else 'more'} CPU per packet than {before.way}"
    if not (before.p99.weight and after.p99.weight):
        return words
    return f"{words}, p99 {_us(after.p99)} instead of {_us(before.p99)} µs"


def _allowed(limit: float, budget_ns: int) -> str:
    own = round((limit - budget_ns) / 1e3)
    budget = f"budget {duration_text(budget_ns)}"
    return f"{budget} and the {own:,} µs that the server needs by itself" if own else budget


def _p99(pool: Pool) -> str:
    return f"p99 {_us(pool)} µs" if pool.weight else "p99 not measured"


def _us(pool: Pool) -> str:
    return f"{pool.typical / 1e3:,.0f}" if pool.weight else "–"


def _cost(pool: Pool) -> str:
    return f"{figure(pool.typical * 1e6)} µs CPU per packet" if pool.weight else "its CPU time not measured"
