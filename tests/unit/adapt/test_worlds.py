"""The controller against recorded and made-up worlds: what it promises whatever happens, and what it finds."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from math import exp, log, pi, sin
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.adapt.controller import MOST_IN_A_MINUTE, limit_ns
from napctl.adapt.controller_state import BARRED_SECONDS, REST_SECONDS
from napctl.adapt.preference import Prefer
from napctl.adapt.ways import Way
from tests.unit.adapt.worlds import (
    WAYS,
    Course,
    Noise,
    Window,
    World,
    course,
    memcached,
    memcached_in_quiet,
    most_changes,
    trial_seconds,
)

pytestmark = pytest.mark.heavy

STEPS = [(20.0, 5_000.0), (20.0, 60_000.0), (20.0, 100_000.0)]
LEAST_AT_THE_HEAVIEST_US = 614


def way_now(run: Course) -> str:
    return str(run.state.way)


def kept(run: Course, windows: list[Window]) -> float:
    """The share of the time in windows whose p99 kept the limit that holds at the end."""
    limit = limit_ns(run.state, run.goal)
    return seconds(each for each in windows if (each.seen.p99_ns or 0) <= limit) / seconds(windows)


def seconds(windows: Iterable[Window]) -> float:
    return sum(each.seen.seconds for each in windows)


def p99_us(window: Window) -> float:
    """That of the table: without noise."""
    return memcached(window.seen.way, window.load, 0.0)[1] / 1e3


def cpu_seconds(windows: list[Window]) -> float:
    return sum(each.seen.cpu_seconds or 0.0 for each in windows)


def cpu_seconds_of(way: Way, steps: list[tuple[float, float]]) -> float:
    """Of a way that stays."""
    return sum(seconds * load * memcached(way, load, 0.0)[0] for seconds, load in steps)


def assert_promises(run: Course, windows: list[Window]) -> None:
    """Those that hold in any world."""
    assert {each.decision.way for each in windows} <= set(run.goal.ways)
    assert most_changes(windows, 60) <= MOST_IN_A_MINUTE
    assert trial_seconds(windows, 600) <= 0.05 * 600 + 1
    last = -100.0
    back: dict[tuple[int, Way], float] = {}
    for each in windows:
        kind, at, state = each.decision.kind, each.seen.at, each.decision.state
        if kind in ("trial", "better"):
            assert at - last >= REST_SECONDS - 0.01
        if kind in ("trial", "cure"):
            assert at - back.get((state.octave, each.decision.way), -BARRED_SECONDS) >= BARRED_SECONDS - 0.01
        if kind == "back":
            back[state.octave, each.seen.way] = at
        if kind:
            last = at
            assert each.decision.reason
            assert each.decision.way != each.seen.way


# --- the table that was measured


@pytest.mark.parametrize(
    ("budget_us", "load", "prefer", "expected"),
    [
        (150, 5_000, "cpu", {"interrupts"}),
        (150, 20_000, "cpu", {"interrupts"}),
        (150, 60_000, "cpu", {"50us"}),
        (150, 100_000, "cpu", {"50us"}),  # none keeps it: the least p99
        (150, 5_000, "latency", {"interrupts"}),
        (150, 20_000, "latency", {"interrupts"}),
        (400, 60_000, "cpu", {"200us"}),
        (400, 60_000, "latency", {"50us", "100us"}),  # 50us costs 1.29 times what 200us does
        (5_000, 100_000, "cpu", {"200us", "100us"}),
        (5_000, 100_000, "latency", {"50us"}),
        (5_000, 5_000, "latency", {"interrupts"}),
    ],
)
def test_after_learning_it_is_in_the_way_that_the_table_says(
    budget_us: float, load: float, prefer: Prefer, expected: set[str]
) -> None:
    run = course(budget_us, prefer, seed=5)
    run.run(memcached, [(120, 5_000), (900, load)])
    windows = run.run(memcached, [(60, load)])

    assert way_now(run) in expected
    assert sum(str(each.seen.way) in expected for each in windows) >= 0.9 * len(windows)
    assert_promises(run, run.windows)


@pytest.mark.parametrize(
    ("noise", "share"), [(Noise(), 0.95), (Noise(cost=0.1, p99=0.15), 0.92)], ids=["usual noise", "more"]
)
def test_a_load_that_steps_keeps_the_budget_after_the_second_of_a_step(
    noise: Noise, share: float, sampled: Callable[[Sequence[int], int], list[int]]
) -> None:
    """Learned in one pass before; the budget is 1.3 times the least p99 that any way has at the heaviest step."""
    for seed in sampled(range(40), 2):
        run = course(1.3 * LEAST_AT_THE_HEAVIEST_US, seed=seed, noise=noise)
        run.run(memcached, STEPS)

        windows = run.run(memcached, STEPS * 5)

        after = [each for each in windows if each.since_step > 1]
        assert kept(run, after) >= share
        later = [each for each in after if each.since_step > 2]
        wrong = (each for each in later if p99_us(each) > limit_ns(run.state, run.goal) / 1e3)
        assert seconds(wrong) <= 0.03 * seconds(later)  # trials
        assert cpu_seconds(windows) < 0.92 * cpu_seconds_of(WAYS[2], STEPS * 5)  # the only fixed way that keeps it too
        assert_promises(run, run.windows)


def test_the_one_way_that_keeps_the_budget_is_found_in_the_first_pass_though_another_helps_nothing(
    sampled: Callable[[Sequence[int], int], list[int]],
) -> None:
    """On a quiet machine the shortest timer has at the heaviest step the p99 of interrupts, and is known of the step
    before. Tried first, and taken for what every way is like, it kept 50us from being tried in three runs of four."""
    found: list[bool] = []
    for seed in sampled(range(40), 4):
        run = course(180, seed=seed, noise=Noise(p99=0.15))
        windows = run.run(memcached_in_quiet, [(10, 5_000), (10, 60_000), (10, 100_000), (10, 5_000)] * 3)
        late = [each for each in windows if each.load == 100_000 and each.seen.at > 1_040 and each.since_step > 2]
        found += [str(each.seen.way) == "50us" for each in late]
        assert_promises(run, windows)
    assert sum(found) >= 0.9 * len(found)


def test_a_machine_that_stalls_now_and_then_is_not_taken_for_a_bad_way(
    sampled: Callable[[Sequence[int], int], list[int]],
) -> None:
    """One window in fifteen: no way is better for it, and the one that keeps the budget stays the one in force."""
    shares = []
    for seed in sampled(range(40), 3):
        run = course(1.3 * LEAST_AT_THE_HEAVIEST_US, seed=seed, noise=Noise(stalls=1 / 15))
        run.run(memcached, STEPS * 2)
        windows = run.run(memcached, STEPS * 10)

        later = [each for each in windows if each.since_step > 2]
        limit_us = limit_ns(run.state, run.goal) / 1e3
        shares.append(seconds(each for each in later if p99_us(each) <= limit_us) / seconds(later))
        assert_promises(run, run.windows)
    assert sum(shares) / len(shares) >= (0.9 if len(shares) > 3 else 0.75), shares  # of 40 two have less than 0.8


@pytest.mark.parametrize("pause_seconds", [0, 0.3, 2])
def test_what_was_learned_once_decides_within_two_seconds_of_a_step(pause_seconds: float) -> None:
    """However long nobody asks anything in between."""
    run = course(150)
    run.run(memcached, [(300, 5_000), (300, 60_000)])

    for load, way in ((5_000, "interrupts"), (60_000, "50us"), (5_000, "interrupts")):
        windows = run.run(memcached, [(pause_seconds, 0), (10, load)])
        late = [each for each in windows if each.since_step > 2 and each.load == load]
        assert {str(each.seen.way) for each in late} == {way}


def overloaded(way: Way, load: float, at: float) -> tuple[float, float]:
    """memcached under clients that each wait for their reply: a longer timer is cheaper, and any halves the p99."""
    cost, p99_us = {
        "interrupts": (10.0, 1_400),
        "20us": (9.9, 950),
        "50us": (9.7, 840),
        "100us": (9.2, 820),
        "200us": (8.5, 800),
    }[str(way)]
    return cost * 1e-6, p99_us * 1e3


def test_under_overload_it_leaves_interrupts_within_two_minutes_on_a_machine_whose_p99_differs_by_half() -> None:
    """No way keeps the budget, and three windows do not tell 1,400 from 800 µs there. Of these 100 worlds 9 stay with
    interrupts; 23 if a cure has no more than three windows, 16 if one that looks different ends all, and 32 if both."""
    late = []
    for seed in range(100):
        run = course(150, seed=seed, noise=Noise(p99=0.45))
        run.run(overloaded, [(120, 100_000)])
        windows = run.run(overloaded, [(120, 100_000)])
        late.append(sum(each.seen.seconds for each in windows if str(each.seen.way) == "interrupts") / seconds(windows))
        assert_promises(run, run.windows)
    assert sum(each > 0.2 for each in late) <= 12, late


# --- worlds where nothing can be gained


def same(way: Way, load: float, at: float) -> tuple[float, float]:
    return 20e-6, 200e3


def test_where_all_ways_are_the_same_it_changes_at_most_twice_in_ten_minutes(
    sampled: Callable[[Sequence[tuple[float, Prefer, int, Noise]], int], list[tuple[float, Prefer, int, Noise]]],
) -> None:
    """Whether the budget is kept, is at the edge, or cannot be. One trial in dozens shows by chance what makes it try
    another."""
    preferences: tuple[Prefer, Prefer] = ("cpu", "latency")
    noises = (Noise(), Noise(cost=0.1, p99=0.2))
    cases = list(product((50.0, 190.0, 210.0, 1_000.0), preferences, (0, 2, 4), noises))
    most = []
    for budget_us, prefer, begun_in, noise in sampled(cases, 5):
        run = course(budget_us, prefer, way=WAYS[begun_in], noise=noise, seed=begun_in)
        run.run(same, [(1_200, 20_000)])
        most.append(most_changes(run.windows, 600))
    assert max(most) <= 4
    assert sum(each > 2 for each in most) <= 2


def test_nor_does_it_where_the_load_wanders_meanwhile() -> None:
    run = course(150)
    run.run(same, [(40, 20_000), (30, 50_000), (5, 1_000)] * 15)
    assert most_changes(run.windows, 600) <= 2


# --- made-up worlds


@st.composite
def made_up(draw: st.DrawFn) -> tuple[World, dict[Way, tuple[float, float]]]:
    """Any cost and latency for any way, so also with two humps; at any load the same."""
    figures = {way: (draw(st.floats(5, 50)) * 1e-6, draw(st.floats(30, 3_000)) * 1e3) for way in WAYS}
    return (lambda way, load, at: figures[way]), figures


@st.composite
def drifting(draw: st.DrawFn) -> World:
    """Each way's figures go up and down by up to a third, each in its own time."""
    _, figures = draw(made_up())
    periods = {way: draw(st.floats(300, 7_200)) for way in WAYS}

    def world(way: Way, load: float, at: float) -> tuple[float, float]:
        factor = 1 + 0.33 * sin(2 * pi * at / periods[way])
        return figures[way][0] * factor, figures[way][1] * factor

    return world


@st.composite
def lying(draw: st.DrawFn) -> World:
    """Now and then, for three windows, everything is many times what it is."""
    _, figures = draw(made_up())
    every, cost_times, p99_times = draw(st.floats(20, 400)), draw(st.floats(0.2, 5)), draw(st.floats(0.1, 20))

    def world(way: Way, load: float, at: float) -> tuple[float, float]:
        lies = at % every < 1.5
        return figures[way][0] * (cost_times if lies else 1), figures[way][1] * (p99_times if lies else 1)

    return world


LOADS = st.lists(st.tuples(st.floats(1, 60), st.floats(200, 400_000)), min_size=1, max_size=8)
BUDGETS_US = st.floats(1, 10_000)
PREFERENCES: st.SearchStrategy[Prefer] = st.sampled_from(["cpu", "latency"])
NOISES = st.builds(Noise, cost=st.floats(0, 0.5), p99=st.floats(0, 1.0), samples=st.integers(0, 2_000))


@given(
    st.one_of(made_up().map(lambda made: made[0]), drifting(), lying()),
    LOADS, BUDGETS_US, PREFERENCES, NOISES, st.integers(0, 10**6),
)  # fmt: skip
def test_whatever_the_world_does_it_keeps_what_it_promises(
    world: World, loads: list[tuple[float, float]], budget_us: float, prefer: Prefer, noise: Noise, seed: int
) -> None:
    run = course(budget_us, prefer, noise=noise, seed=seed)
    run.run(world, loads * 3)
    assert_promises(run, run.windows)


def figures_by_chance(random: Random) -> dict[Way, tuple[float, float]]:
    """CPU seconds and p99 in ns by way, in no order at all: so often with two humps."""
    return {way: (random.uniform(5, 50) * 1e-6, exp(random.uniform(log(30), log(3_000))) * 1e3) for way in WAYS}


def test_it_finds_the_cheapest_way_that_keeps_the_budget_and_keeps_it(
    sampled: Callable[[Sequence[int], int], list[int]],
) -> None:
    """Within a fifth, after 40 minutes of a load; where none keeps it, a p99 within a quarter of the least."""
    for seed in sampled(range(120), 3):
        random = Random(seed)
        figures = figures_by_chance(random)
        run = course(exp(random.uniform(log(50), log(2_000))), way=random.choice(WAYS), seed=seed)
        run.run(lambda way, load, at, known=figures: known[way], [(2_400, 20_000)])  # type: ignore[misc]
        windows = run.run(lambda way, load, at, known=figures: known[way], [(200, 20_000)])  # type: ignore[misc]

        limit, (cost, p99) = limit_ns(run.state, run.goal), figures[run.state.way]
        admissible = [cost for cost, p99 in figures.values() if p99 * exp(2 * 1.645 * 0.1) <= limit]
        if admissible:
            assert cost <= 1.2 * min(admissible)
            assert kept(run, windows) >= 0.9
        elif all(p99 > 1.2 * limit for _, p99 in figures.values()):
            assert p99 <= 1.25 * min(p99 for _, p99 in figures.values())
        assert_promises(run, run.windows)


def test_in_a_world_that_drifts_the_budget_is_kept_where_a_way_always_keeps_it(
    sampled: Callable[[Sequence[int], int], list[int]],
) -> None:
    for seed in sampled(range(60), 3):
        random = Random(seed)
        figures = figures_by_chance(random)
        figures[random.choice(WAYS)] = (40e-6, 60e3)
        periods = {way: random.uniform(600, 7_200) for way in WAYS}
        run = course(250, seed=seed)

        def world(
            way: Way, load: float, at: float, figures: dict[Way, tuple[float, float]] = figures,
            periods: dict[Way, float] = periods,
        ) -> tuple[float, float]:  # fmt: skip
            factor = 1 + 0.33 * sin(2 * pi * at / periods[way])
            return figures[way][0] * factor, figures[way][1] * factor

        run.run(world, [(300, 20_000)])
        windows = run.run(world, [(1_800, 20_000)])

        assert kept(run, windows) >= 0.8  # of 60 seeds two have 0.83 and 0.87, where a way creeps over the limit
        assert_promises(run, run.windows)
