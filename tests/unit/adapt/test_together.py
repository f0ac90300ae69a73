"""Several groups of one server: each gets its own way, and together they are bound as one is."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.adapt.controller import MOST_IN_A_MINUTE, decide
from napctl.adapt.controller_state import REST_SECONDS, State, start
from napctl.adapt.learned import Learned
from napctl.adapt.preference import LatencyGoal
from napctl.adapt.reasons import Kind
from napctl.adapt.together import begun_anew, decide_each
from napctl.adapt.ways import INTERRUPTS, Way, WayWindow
from tests.unit.adapt.worlds import WAYS, World, memcached

GOAL = LatencyGoal(ways=WAYS, budget_ns=1_000_000)
Course = list[tuple[float, tuple[State, ...], tuple[Kind | None, ...]]]
"""After each window: its end, the states, and of which kind the changes were."""


def window(world: World, way: Way, load: float, at: float, random: Random) -> WayWindow:
    cost, p99 = world(way, load, at)
    packets = round(load)
    return WayWindow(
        way=way, seconds=1.0, at=at, packets=packets, cpu_seconds=packets * cost * random.lognormvariate(0, 0.05),
        p99_ns=p99 * random.lognormvariate(0, 0.1), p50_ns=p99 / 3, samples=min(packets, 100),
    )  # fmt: skip


def ran(loads: list[list[float]], world: World = memcached, goal: LatencyGoal = GOAL, seed: int = 1) -> Course:
    """Windows of a second, in each of which every group has its load."""
    random = Random(seed)
    states = [start(INTERRUPTS, Learned(identity="a world")) for _ in loads[0]]
    course: Course = []
    for second, each in enumerate(loads):
        seen = [window(world, state.way, load, float(second), random) for state, load in zip(states, each, strict=True)]
        decisions = decide_each(states, seen, goal)
        states = [decision.state for decision in decisions]
        course.append((float(second), tuple(states), tuple(decision.kind for decision in decisions)))
    return course


def test_each_group_comes_to_the_way_that_its_load_needs() -> None:
    course = ran([[100_000, 3_000]] * 900)
    ways = [tuple(str(state.way) for state in states) for _, states, _ in course[-300:]]
    heavy, light = ([each[place] for each in ways] for place in (0, 1))
    assert sum(each in ("50us", "100us", "200us") for each in heavy) > 0.9 * len(heavy), set(heavy)
    assert sum(each == "interrupts" for each in light) > 0.9 * len(light), set(light)


@given(st.integers(0, 1000))
def test_one_group_alone_is_decided_upon_as_without(seed: int) -> None:
    random = Random(seed)
    alone = together = start(INTERRUPTS, Learned(identity="a world"))
    for second in range(60):
        seen = window(memcached, alone.way, random.choice([2_000, 60_000, 100_000]), float(second), random)
        decision = decide(alone, seen, GOAL)
        (other,) = decide_each([together], [seen], GOAL)
        assert other == decision
        alone, together = decision.state, other.state


LOADS = (0.0, 200.0, 3_000.0, 20_000.0, 60_000.0, 100_000.0)


def jumping(groups: int, seconds: int, random: Random) -> list[list[float]]:
    """Loads that are others after some seconds, of each group by itself."""
    courses = []
    for _ in range(groups):
        course: list[float] = []
        while len(course) < seconds:
            course += [random.choice(LOADS)] * random.choice([2, 5, 30, 200])
        courses.append(course[:seconds])
    return [list(each) for each in zip(*courses, strict=True)]


@given(st.integers(2, 3), st.integers(0, 10_000), st.sampled_from([50_000, 150_000, 1_000_000, 100_000_000]))
def test_together_they_change_no_oftener_and_try_no_longer_than_one(groups: int, seed: int, budget_ns: int) -> None:
    loads = jumping(groups, 900, Random(seed))
    course = ran(loads, goal=replace(GOAL, budget_ns=budget_ns), seed=seed)
    changes = [(at, kind) for at, _, kinds in course for kind in kinds if kind]
    assert all(sum(begun <= at < begun + 60 for at, _ in changes) <= MOST_IN_A_MINUTE for begun, _ in changes)
    for (before, _), (at, kind) in pairwise(changes):
        assert kind not in ("trial", "better") or at - before >= REST_SECONDS
    tried = [
        (at, sum(each.trial is not None and each.trial.kind == "trial" for each in states)) for at, states, _ in course
    ]
    assert all(count <= 1 for _, count in tried)
    assert all(
        sum(count for later, count in tried if at <= later < at + 600) <= 0.05 * 600 + 1 for at, _ in tried[::20]
    )
    assert all(state.learned == states[0].learned for _, states, _ in course for state in states)


@pytest.mark.parametrize("way", WAYS)
def test_a_group_made_anew_keeps_what_was_learned_and_what_may_be_spent(way: Way) -> None:
    ((_, (state, _), _),) = ran([[100_000, 3_000]] * 40)[-1:]
    made = begun_anew(state, way)
    assert (made.way, made.trial, made.recent, made.last_octave) == (way, None, (), None)
    assert (made.learned, made.credit, made.changes, made.clock) == (
        state.learned, state.credit, state.changes, state.clock,
    )  # fmt: skip
