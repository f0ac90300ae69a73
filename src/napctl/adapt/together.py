"""The decisions for several groups of one server, which share what was learned and what may be spent. Pure."""

from collections.abc import Sequence

from msgspec.structs import replace

from napctl.adapt.controller import Decision, decide
from napctl.adapt.controller_state import SAVED_SECONDS, TRIAL_SHARE, State
from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import Way, WayWindow

__all__ = ["begun_anew", "decide_each"]


def decide_each(states: Sequence[State], seen: Sequence[WayWindow], goal: LatencyGoal) -> tuple[Decision, ...]:
    """After a window of each group, all of the same time. What is promised of one controller holds for all together:
    changes in a minute, those without need in ten seconds (so no trial begins beside another), and the share of time
    in trials.
    """
    learned, changes = states[0].learned, states[0].changes
    noticed, credit, spent = max(each.noticed for each in states), states[0].credit, 0.0
    decisions: list[Decision] = []
    for state, window in zip(states, seen, strict=True):
        mine = replace(state, learned=learned, changes=changes, noticed=noticed, credit=credit)
        decision = decide(mine, window, goal)
        if state.trial and state.trial.kind == "trial":
            spent += decision.state.clock - state.clock
        learned, changes, noticed = decision.state.learned, decision.state.changes, decision.state.noticed
        decisions.append(decision)
    step = decisions[0].state.clock - states[0].clock
    credit = min(SAVED_SECONDS, credit + TRIAL_SHARE * step) - spent
    shared = {"learned": learned, "changes": changes, "noticed": noticed, "credit": credit}
    return tuple(replace(each, state=replace(each.state, **shared)) for each in decisions)


def begun_anew(state: State, way: Way) -> State:
    """For a group that is made anew, of one whose state that was: what was learned stays, and so do the bounds. That
    ways were alike there says nothing of its load."""
    return replace(state, way=way, last_octave=None, recent=(), trial=None, alike_until=0.0)
