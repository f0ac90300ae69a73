"""The decision: from a window and what is known to the next way, and why. docs/adapt.md says how, in a page."""

from math import log

from msgspec.structs import replace

from napctl.adapt import reasons
from napctl.adapt.controller_state import (
    BARRED_SECONDS,
    LEFT_SECONDS,
    LONGEST_BARRED_SECONDS,
    NOTICE_SECONDS,
    SAVED_SECONDS,
    TRIAL_SHARE,
    State,
    TriedWay,
    barred,
    is_barred,
)
from napctl.adapt.learned import LEAST_KNOWN, LearnedWay, load_of, octave_of, pooled
from napctl.adapt.preference import (
    ENTER,
    P99,
    SOONER,
    STAY,
    LatencyGoal,
    alike,
    change,
    clear,
    keeps,
    preferred,
    safely_beyond,
)
from napctl.adapt.reasons import Kind
from napctl.adapt.ways import Way, WayWindow
from napctl.model.value import Value

__all__ = [
    "RECENT",
    "SETTLE_SECONDS",
    "WINDOW_SECONDS",
    "Decision",
    "decide",
    "limit_ns",
]


WINDOW_SECONDS = 0.5
"""What a window should last: 0.25 to 1 s will do. A step of the load is answered after the window that shows it."""
SETTLE_SECONDS = 0.05
"""Left out after a change, before the next window begins: what had queued up under the way before is gone then."""

TRIAL_WINDOWS = 3
"""After which a new way has helped, or is taken back."""
PATIENCE = 6
"""Windows after which a trial ends anyway, where most of them showed nothing."""
LONGEST_CURE = 10
"""Windows after which a cure that only looks as if it helped must have shown it."""
MOST_TO_TRY = 10
"""Changes within a minute, from which nothing new is tried,"""
MOST_IN_A_MINUTE = 24
"""and from which nothing is changed: no load, however it jumps, makes more."""
RECENT = 8
"""Windows under the present way that a trial is compared with."""
LEAST_RECENT = 4
"""And without which none is begun."""
BREAKING = 2
"""Windows that must break the budget together, before the way is left: the machine's noise spoils single ones."""
VAIN = 2
"""Cures in a row that clearly changed nothing, from which ways are taken to be alike, whatever they look like."""
SURPRISE = 5.0
"""Standard errors by which they must differ from what the way is known for, to be more than the worst of many."""
SATURATED = 0.8
"""CPUs for each NAPI instance, from which a longer timer is the cure: overload, not the timer, makes packets wait."""
WORSE = 1.5
"""Times the p99 that no other way had changed, from which another cure is worth trying all the same."""
HOPELESS = 1.5
"""A way that broke the limit by as much at the next octave is not tried at this one."""
FADED = 0.5
"""Windows that weigh on a way, below which it is tried again."""
LONGEST_GAP = 60.0
"""Seconds between two windows; a clock that jumps further is taken to have gone so far, one that goes back to stand."""


class Decision(Value, frozen=True, kw_only=True):
    """The way from now on, and the state to go on with."""

    way: Way
    state: State
    kind: Kind | None = None
    """Of a change; None: there is none."""
    reason: str = ""
    """Of a change: a clause with its figures."""
    notice: str = ""
    """Something to say without a change: a trial has helped; no way keeps the budget (at most once a minute)."""


def decide(state: State, seen: WayWindow, goal: LatencyGoal) -> Decision:
    """After each window. Deterministic; takes what it knows from its arguments alone."""
    state = _later(state, seen)
    if state.way not in goal.ways:
        return _changed(state, goal.ways[0], "load", f"{state.way} is none of the ways to choose among")
    if seen.way not in goal.ways:
        return _stay(replace(state, recent=(), trial=None))
    if seen.way != state.way:  # it could not be made, or somebody else has changed it
        state = replace(barred(state, state.way, in_need_too=True), way=seen.way, recent=(), trial=None)
    load = load_of(seen)
    if load is None:
        return _ended(state, goal) if state.trial and state.trial.windows >= PATIENCE else _stay(state)
    octave = octave_of(load, state.last_octave)
    if octave != state.last_octave:
        return _load_changed(state, load, goal, octave)
    learned, recent = state.learned.with_one(octave, seen), (*state.recent, seen)[-RECENT:]
    return _with_another(replace(state, learned=learned, recent=recent), goal)


def _with_another(state: State, goal: LatencyGoal) -> Decision:
    """After a window that tells something, at the octave of those before."""
    if state.trial:
        over = len(state.recent) >= TRIAL_WINDOWS or state.trial.windows >= PATIENCE
        if over and _promising(state):
            return _stay(state)
        return _ended(state, goal) if over or _spoiled(state, goal) else _stay(state)
    if breaking := _breaking(state, goal):
        return _cured(state, goal, breaking)
    return _improved(state, goal) if state.rested and len(state.recent) >= LEAST_RECENT else _stay(state)


def limit_ns(state: State, goal: LatencyGoal) -> float:
    """Of the p99 as it is measured: the budget, and what the server needs by itself."""
    return goal.budget_ns + state.learned.own_p99_ns


def _later(state: State, seen: WayWindow) -> State:
    """Its own clock goes with the windows'."""
    span = seen.seconds if state.at is None else seen.at - state.at
    step = min(max(span, 0.0), LONGEST_GAP)
    clock, trial = state.clock + step, state.trial
    spent = step if trial and trial.kind == "trial" else 0.0
    return replace(
        state,
        clock=clock,
        at=seen.at,
        credit=min(SAVED_SECONDS, state.credit + TRIAL_SHARE * step) - spent,
        trial=trial and replace(trial, windows=trial.windows + 1),
        changes=(*(each for each in state.changes[:-1] if clock - each < 60), *state.changes[-1:]),
        bars=tuple(each for each in state.bars if clock < each.until + LONGEST_BARRED_SECONDS),
    )


def _load_changed(state: State, load: float, goal: LatencyGoal, octave: int) -> Decision:
    """Another octave, or the first: what is known of it decides at once, else what is known of the next one.

    The window that shows it began in the octave before, so nothing is learned from it. If a way on trial has brought
    more load, as a quicker one does where clients wait for their replies, and nothing is known of that, it stays.
    """
    brought = state.trial is not None and state.last_octave is not None and octave > state.last_octave
    origin = state.trial.origin if state.trial else state.way
    state = replace(state, last_octave=octave, recent=(), trial=None)
    ways = [way for way in goal.ways if way == origin or not is_barred(state, way)]
    cells = [state.learned.cell(octave, way) for way in ways]
    anything = any(each.p99.weight >= LEAST_KNOWN for each in cells)
    if brought and not anything:
        return _stay(state)
    cells = [state.learned.near(octave, each.way) if each.way == origin or not anything else each for each in cells]
    target = preferred(goal, limit_ns(state, goal), cells, origin, state.learned.near(octave, origin))
    if target == state.way:
        return _stay(state)
    words = reasons.load_changed(load, next(each for each in cells if each.way == target))
    return _changed(state, target, "load", words)


def _spoiled(state: State, goal: LatencyGoal) -> bool:
    """Whether a trial breaks a budget that was kept before it: then one window is enough."""
    assert state.trial is not None
    limit, before = limit_ns(state, goal), pooled(state.trial.before, state.octave, state.trial.origin)
    return before.p99.typical <= limit and safely_beyond(_here(state).p99, limit)


def _promising(state: State) -> bool:
    """Whether a cure looks as if it helped, but for the noise: a broken budget is worth some windows more to know."""
    assert state.trial is not None
    trial, after = state.trial, _here(state)
    before, usual = pooled(trial.before, state.octave, trial.origin), state.learned.cell(state.octave, trial.origin)
    if trial.kind != "cure" or trial.windows >= LONGEST_CURE or not (before.p99.weight and after.p99.weight):
        return False
    looks = change(before.p99, after.p99, usual.p99.spread(P99))
    return looks.mean <= log(1 - SOONER) and not looks.gains(SOONER) and len(state.recent) < RECENT


def _breaking(state: State, goal: LatencyGoal) -> tuple[WayWindow, ...]:
    """The last windows, if they break the budget, each, and together beyond their noise."""
    limit, seen = limit_ns(state, goal), [each for each in state.recent if each.p99_ns is not None]
    if any((each.p99_ns or 0.0) <= limit for each in seen[-BREAKING:]):
        return ()
    for count in range(BREAKING, len(seen) + 1):
        last = tuple(seen[-count:])
        p99 = pooled(last, state.octave, state.way).p99
        if p99.weight >= LEAST_KNOWN and safely_beyond(p99, limit):
            return last
    return ()


def _cured(state: State, goal: LatencyGoal, breaking: tuple[WayWindow, ...]) -> Decision:
    """The budget is broken: the best that is known, else what has not been tried, else the least that there is.

    Windows far beyond what the way is known for tell of something new, and so do all recent ones together; they are
    believed at once. Others are chance, unless the way is known to break the budget.
    """
    limit, cells = limit_ns(state, goal), _known(state, goal, in_need=True)
    here, cell = pooled(breaking, state.octave, state.way), state.learned.cell(state.octave, state.way)
    good, new = keeps(cell.p99, limit, STAY), change(cell.p99, here.p99, P99).is_there(SURPRISE)
    if not new:  # the worst of many windows are no measure of them
        here, breaking = _here(state), state.recent
        new = good and len(breaking) == RECENT and safely_beyond(here.p99, limit)
    if good and not new:
        return _stay(state)
    if new:
        cells = [here if each.way == state.way else each for each in cells]
    target = preferred(goal, limit, cells, state.way, cell)
    if target != state.way:
        there = state.learned.cell(state.octave, target)
        if state.rested or keeps(there.p99, limit, ENTER):
            return _tried(state, target, "budget", reasons.broken(here, there, limit, goal.budget_ns), breaking)
    untried = _untried(state, goal)
    vain = state.clock < state.alike_until and here.p99.typical <= WORSE * state.alike_p99_ns
    if untried and not vain:
        target = min(untried, key=lambda way: _cure_order(state, goal, way))
        return _tried(state, target, "cure", reasons.cure(here, target, limit, goal.budget_ns), breaking)
    return _noticed(state, goal)


def _improved(state: State, goal: LatencyGoal) -> Decision:
    """The budget is kept: what is known to be better, or a trial of what might be."""
    limit, here, cell = limit_ns(state, goal), _here(state), state.learned.cell(state.octave, state.way)
    target = preferred(goal, limit, _known(state, goal), state.way, cell)
    if target != state.way:
        words = reasons.better(cell, state.learned.cell(state.octave, target))
        return _tried(state, target, "better", words, state.recent)
    if not keeps(here.p99, limit, ENTER) or here.p99.weight < LEAST_KNOWN:
        return _stay(state)
    enough = state.credit >= (TRIAL_WINDOWS + 1) * state.recent[-1].seconds
    untried = [way for way in _untried(state, goal) if not _hopeless(state, goal, way)]
    if state.clock < state.alike_until or not enough or not untried:
        return _stay(state)
    place = goal.ways.index(state.way)
    target = min(untried, key=lambda way: (abs(goal.ways.index(way) - place), -goal.ways.index(way)))
    return _tried(state, target, "trial", reasons.trial(here, target), state.recent)


def _ended(state: State, goal: LatencyGoal) -> Decision:
    """A trial: it has helped, if its few windows are preferred to those before it."""
    assert state.trial is not None
    trial, limit = state.trial, limit_ns(state, goal)
    before, after = pooled(trial.before, state.octave, trial.origin), _here(state)
    usual = state.learned.cell(state.octave, trial.origin)
    helped = preferred(goal, limit, (before, after), trial.origin, usual) == state.way
    if trial.kind == "cure" and after.p99.weight and not keeps(after.p99, limit, ENTER):  # a saving is no cure
        helped = helped and change(before.p99, after.p99, usual.p99.spread(P99)).gains(SOONER)
    differ = clear(before, after, usual)
    if trial.kind == "cure":
        state = replace(state, vain=0 if differ or helped else state.vain + 1)
    few = trial.kind == "cure" and state.vain < VAIN
    if trial.kind in ("trial", "cure") and not differ and not (few and not alike(before, after, usual)):
        p99_ns = max(before.p99.typical, usual.p99.typical)
        state = replace(state, alike_until=state.clock + BARRED_SECONDS, alike_p99_ns=p99_ns, vain=0)
    if helped:
        if trial.kind in ("budget", "cure"):
            state = barred(state, trial.origin, in_need_too=True, seconds=LEFT_SECONDS)
        return replace(_stay(replace(state, trial=None)), notice=reasons.helped(before, after))
    if _last_minute(state) >= MOST_IN_A_MINUTE:
        return _stay(state)
    state = barred(state, state.way, in_need_too=not after.p99.weight or after.p99.typical > limit)
    return _changed(replace(state, trial=None), trial.origin, "back", reasons.taken_back(before, after, limit))


def _noticed(state: State, goal: LatencyGoal) -> Decision:
    """No way keeps the budget: said once a minute."""
    if state.clock - state.noticed < NOTICE_SECONDS:
        return _stay(state)
    state = replace(state, noticed=state.clock)
    tried = sum(state.learned.cell(state.octave, way).p99.weight > 0 for way in goal.ways)
    words = reasons.none_keeps(_here(state), tried, limit_ns(state, goal), goal.budget_ns)
    return replace(_stay(state), notice=words)


def _stay(state: State) -> Decision:
    return Decision(way=state.way, state=state)


def _tried(state: State, target: Way, kind: Kind, reason: str, before: tuple[WayWindow, ...]) -> Decision:
    """A change that is to show within a few windows that it helps."""
    if _last_minute(state) >= MOST_TO_TRY:
        return _stay(state)
    return _changed(state, target, kind, reason, TriedWay(kind=kind, origin=state.way, before=before))


def _changed(state: State, target: Way, kind: Kind, reason: str, trial: TriedWay | None = None) -> Decision:
    if _last_minute(state) >= MOST_IN_A_MINUTE:
        return _stay(state)
    state = replace(state, way=target, trial=trial, recent=(), changes=(*state.changes, state.clock))
    return Decision(way=target, state=state, kind=kind, reason=reason)


def _last_minute(state: State) -> int:
    return sum(state.clock - each < 60 for each in state.changes)


def _here(state: State) -> LearnedWay:
    """The present way by its last windows alone."""
    return pooled(state.recent, state.octave, state.way)


def _known(state: State, goal: LatencyGoal, *, in_need: bool = False) -> list[LearnedWay]:
    ways = (way for way in goal.ways if way == state.way or not is_barred(state, way, in_need=in_need))
    return [state.learned.cell(state.octave, way) for way in ways]


def _untried(state: State, goal: LatencyGoal) -> list[Way]:
    others = (way for way in goal.ways if way != state.way and not is_barred(state, way))
    return [way for way in others if state.learned.cell(state.octave, way).p99.weight < FADED]


def _hopeless(state: State, goal: LatencyGoal, way: Way) -> bool:
    near = state.learned.near(state.octave, way).p99
    return near.weight > 0 and not keeps(near, HOPELESS * limit_ns(state, goal), 0.0)


def _cure_order(state: State, goal: LatencyGoal, way: Way) -> tuple[bool, float]:
    """From interrupts the middle of the range first, from a timer the shorter ones, or, where the CPU is saturated, the
    longer ones; last what breaks the limit at the next octave. What is best there was taken as the load came."""
    near, place, index = state.learned.near(state.octave, way).p99, goal.ways.index(state.way), goal.ways.index(way)
    bad = near.weight > 0 and not keeps(near, limit_ns(state, goal), 0.0)
    if place == 0:
        return bad, abs(index - len(goal.ways) / 2)
    longer = _here(state).cost.typical * 2 ** (state.octave + 0.5) >= SATURATED
    return bad, abs(index - place) + (0 if (index > place) == longer else len(goal.ways))
