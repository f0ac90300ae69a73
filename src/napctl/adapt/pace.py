"""When a window begins and when it has ended, from glances at the packets alone. Pure, like the decision."""

from dataclasses import dataclass
from itertools import takewhile

from napctl.adapt.controller import RECENT, WINDOW_SECONDS, limit_ns
from napctl.adapt.controller_state import State
from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import WayWindow

__all__ = ["WindowSpan", "followed", "has_begun", "has_ended", "next_span"]


IDLE_PER_SECOND = 100.0
"""Packets, below which a server idles: nothing can be told then, and nothing is to be gained."""
SETTLED_SECONDS = 2.0
"""From a window to the next at a load that has not changed for as many as a trial is compared with. In between nobody
looks: what looks at each request costs a busy server some percent of its CPU time, whatever it does with it."""
ANOTHER_LOAD = 1.4
"""Ratio of packets a second within a window, from which it is given up: it has seen two loads, which are none."""
LONGEST_SEEN_NS = 0.1 * WINDOW_SECONDS * 1e9
"""A p99 up to which a window may have a rest before it. Of what came before the window nobody knows when: longer waits
are cut off at its begin, and of those as long as a window none is seen."""
SLACK = 0.1
"""A window that is nearly as long as it should be, is."""


@dataclass(frozen=True)
class WindowSpan:
    """Of a window: when it begins, and how long it is to be, s."""

    began: float
    seconds: float = WINDOW_SECONDS
    rested: float = 0.0
    """Before it began, since the last one: nobody looked then, but for the glances."""
    again: bool = False
    """It is in the place of one that was given up, and is not given up itself."""


def next_span(
    span: WindowSpan | None, at: float, before: float, rate: float, *, tries: bool = False
) -> WindowSpan | None:
    """After a glance, which saw so many packets a second and the glance before that many. None: the server idles, and
    there is no window. The same: it goes on, or has_ended()."""
    if rate < IDLE_PER_SECOND and not tries:
        return None
    if span is None:
        return WindowSpan(at)
    if not span.again and max(before, rate) > ANOTHER_LOAD * min(before, rate):
        return WindowSpan(at, again=True)
    return span


def has_begun(span: WindowSpan, at: float) -> bool:
    """Whether it is time to look."""
    return at >= span.began - SLACK


def has_ended(span: WindowSpan, at: float) -> bool:
    """Whether that window is to be decided upon."""
    return at - span.began >= span.seconds - SLACK


def followed(at: float, state: State, goal: LatencyGoal) -> WindowSpan:
    """By the next window: at once, or later where there is nothing to hurry for, that is no trial, waits that are short
    against a window, and a budget that is kept, or has been broken for so long that it is nothing new."""
    limit = limit_ns(state, goal)
    over = sum(1 for _ in takewhile(lambda each: (each.p99_ns or 0.0) > limit, reversed(state.recent)))
    hurry = state.trial or len(state.recent) < RECENT or 0 < over < RECENT or not all(map(_is_short, state.recent))
    rest = 0.0 if hurry else SETTLED_SECONDS - WINDOW_SECONDS
    return WindowSpan(at + rest, rested=rest)


def _is_short(seen: WayWindow) -> bool:
    """Whether its p99 is as good after a rest. The wait for a poll is counted all the time."""
    return seen.until_poll_only or (seen.p99_ns is not None and seen.p99_ns <= LONGEST_SEEN_NS)
