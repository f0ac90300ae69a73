"""Which NAPI instances of one server are decided upon together: those of like load. Pure."""

from collections.abc import Sequence
from itertools import pairwise
from math import log2

from msgspec.structs import replace

from napctl.model.value import Value

__all__ = ["Grouping", "Groups", "regrouped"]


APART = 1.0
"""Octaves between neighbours in the order of their loads, from which they are of two groups."""
NEAR = 0.5
"""And below which those of two groups are of one again."""
DIFFER_SECONDS = 30.0
"""For so long, without interruption, the loads must ask for the same other groups."""
MOST_GROUPS = 3
"""The widest gaps count."""
LEAST_LOAD = 100.0
"""Packets a second: less is idle, and all that idles is alike."""

Groups = tuple[int, ...]
"""For each unit the number of its group, in the order in which groups come up: (0, 1, 0)."""


class Grouping(Value, frozen=True, kw_only=True):
    """Groups in force, and others that the loads ask for."""

    groups: Groups
    asked: Groups = ()
    """Empty: none."""
    asked_at: float = 0.0
    """When they began to, of CLOCK_MONOTONIC."""

    @classmethod
    def together(cls, units: int) -> "Grouping":
        """All in one."""
        return cls(groups=(0,) * units)


def regrouped(now: Grouping, loads: Sequence[float], at: float) -> Grouping:
    """After a window in which each unit had so many packets a second for each of its instances."""
    asked = _by_load(loads, now.groups)
    if asked == now.groups:
        return Grouping(groups=now.groups)
    if asked != now.asked or at < now.asked_at:
        return replace(now, asked=asked, asked_at=at)
    return Grouping(groups=asked) if at - now.asked_at >= DIFFER_SECONDS else now


def _by_load(loads: Sequence[float], groups: Groups) -> Groups:
    places = [log2(max(load, LEAST_LOAD)) for load in loads]
    order = sorted(range(len(loads)), key=lambda unit: places[unit])
    gaps = [
        (places[above] - places[below], position)
        for position, (below, above) in enumerate(pairwise(order), 1)
        if places[above] - places[below] >= (APART if groups[below] == groups[above] else NEAR)
    ]
    cuts = sorted(position for _, position in sorted(gaps, reverse=True)[: MOST_GROUPS - 1])
    found = [0] * len(loads)
    for position, unit in enumerate(order):
        found[unit] = sum(cut <= position for cut in cuts)
    return tuple(list(dict.fromkeys(found)).index(each) for each in found)
