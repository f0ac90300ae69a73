"""The rules of the decision, one by one, and what it makes of input that is no use."""

from itertools import pairwise

import pytest
from msgspec.structs import replace

from napctl.adapt.controller import TRIAL_WINDOWS, Decision, decide
from napctl.adapt.controller_state import BARRED_SECONDS, NOTICE_SECONDS, REST_SECONDS, start
from napctl.adapt.learned import Learned
from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import INTERRUPTS, Way, WayWindow
from napctl.model.errors import BadInput
from napctl.model.value import from_json, to_json
from tests.unit.adapt.worlds import WAYS, Course, Noise, Window, World, course

QUIET = Noise(cost=0.01, p99=0.02)


def world_of(**figures: tuple[float, float]) -> World:
    """CPU µs for each packet, and p99 in µs, by way, at any load; those not named are bad in both."""

    def world(way: Way, load: float, at: float) -> tuple[float, float]:
        cost_us, p99_us = figures.get(str(way) if way == INTERRUPTS else f"t{way}", (99, 9_000))
        return cost_us * 1e-6, p99_us * 1e3

    return world


CHEAP_AT_50 = world_of(interrupts=(20, 100), t20us=(15, 110), t50us=(10, 120), t100us=(9, 900))


def changed(windows: list[Window]) -> list[tuple[str | None, str]]:
    return [(each.decision.kind, str(each.decision.way)) for each in windows if each.decision.kind]


# --- the rules


def test_it_tries_the_neighbour_first_and_goes_on_from_what_helped() -> None:
    run = course(300, noise=QUIET)
    windows = run.run(CHEAP_AT_50, [(60, 50_000)])

    assert changed(windows)[:2] == [("trial", "20us"), ("trial", "50us")]
    assert str(run.state.way) == "50us"
    assert ("back", "50us") in changed(windows)  # from 100us, which breaks the budget


def test_a_trial_is_judged_after_three_windows_and_sooner_where_it_breaks_the_budget() -> None:
    run = course(300, noise=QUIET)
    windows = run.run(CHEAP_AT_50, [(60, 50_000)])
    trials = [index for index, each in enumerate(windows) if each.decision.kind == "trial"]

    first, *_ = trials
    assert windows[first + TRIAL_WINDOWS].decision.notice.startswith("stays with 20us: 24 % less CPU per packet")
    bad = next(index for index in trials if str(windows[index].decision.way) == "100us")
    assert windows[bad + 1].decision.kind == "back"


def test_changes_that_are_not_urgent_are_ten_seconds_apart() -> None:
    run = course(300, noise=QUIET)
    windows = run.run(CHEAP_AT_50, [(120, 50_000)])
    times = [each.seen.at for each in windows if each.decision.kind in ("trial", "better")]

    assert len(times) > 2
    assert min(later - before for before, later in pairwise(times)) >= REST_SECONDS


def test_what_did_not_help_is_not_tried_again_for_ten_minutes() -> None:
    run = course(300, noise=QUIET)
    windows = run.run(world_of(interrupts=(10, 100), t20us=(30, 100)), [(BARRED_SECONDS, 50_000)])
    tried = [str(each.decision.way) for each in windows if each.decision.kind == "trial"]

    assert tried == ["20us", "50us", "100us", "200us"]


def test_a_way_that_breaks_the_budget_is_left_after_two_windows() -> None:
    run = course(300, noise=QUIET)
    good = world_of(interrupts=(10, 100), t20us=(15, 100), t50us=(20, 100), t100us=(20, 100))
    run.run(good, [(120, 50_000)])
    bad = world_of(interrupts=(10, 2_000), t20us=(15, 100), t50us=(20, 100), t100us=(20, 100))
    windows = run.run(bad, [(10, 50_000)])

    assert [each.decision.kind for each in windows[:3]] == [None, "budget", None]
    assert windows[1].decision.way == WAYS[1]
    assert windows[1].decision.reason.endswith(" µs, budget 300us; under 20us it had 100 µs")


def test_one_bad_window_is_not_enough() -> None:
    run = course(300, noise=QUIET)
    good, bad = (world_of(interrupts=(10, p99), t20us=(30, 100)) for p99 in (100, 20_000))
    run.run(good, [(60, 50_000)])
    run.run(bad, [(0.5, 50_000)])
    windows = run.run(good, [(5, 50_000)])

    assert all(each.decision.kind != "budget" for each in run.windows)
    assert run.state.way == INTERRUPTS
    assert windows


def test_where_the_machine_and_not_the_way_is_slow_it_comes_back() -> None:
    run = course(300, noise=QUIET)
    good = world_of(interrupts=(10, 100), t20us=(20, 100))
    run.run(good, [(60, 50_000)])
    run.run(lambda way, load, at: (10e-6, 50e6), [(1.5, 50_000)])  # for three windows
    run.run(good, [(90, 50_000)])

    assert run.state.way == INTERRUPTS


def test_a_saturated_cpu_tries_the_longer_timers_first_and_a_free_one_the_shorter() -> None:
    for load, expected in ((60_000, "100us"), (10_000, "20us")):
        run = course(300, way=WAYS[2], noise=QUIET)
        windows = run.run(world_of(t50us=(20, 2_000)), [(3, load)])
        assert changed(windows)[0] == ("cure", expected)


def test_a_cure_is_not_chosen_for_being_the_only_one_that_another_load_knows() -> None:
    """What is best by that was taken as the load came, and did not do: the middle of the range tells more."""

    def world(way: Way, load: float, at: float) -> tuple[float, float]:
        light = world_of(interrupts=(10, 100), t20us=(15, 90))
        return light(way, load, at) if load < 70_000 else (10e-6, 2_000e3)

    run = course(300, noise=QUIET)
    assert changed(run.run(world, [(8, 50_000)])) == [("trial", "20us"), ("back", "interrupts")]
    assert changed(run.run(world, [(4, 100_000)]))[0] == ("cure", "50us")


def test_latency_is_preferred_among_what_is_affordable() -> None:
    world = world_of(interrupts=(10, 250), t20us=(12, 150), t50us=(14, 60), t100us=(30, 100), t200us=(9, 290))
    ends = []
    for prefer in ("cpu", "latency"):
        run = course(400, prefer, noise=QUIET)
        run.run(world, [(600, 50_000)])
        ends.append(str(run.state.way))
    assert ends == ["200us", "interrupts"]  # all else costs more than 1.25 times what 200us does


def test_where_no_way_keeps_the_budget_it_takes_the_least_p99_and_says_so_once_a_minute() -> None:
    run = course(50, noise=QUIET)
    world = world_of(interrupts=(10, 900), t20us=(12, 700), t50us=(14, 400), t100us=(9, 800), t200us=(8, 950))
    windows = run.run(world, [(600, 50_000)])
    notices = [each.seen.at for each in windows if each.decision.notice.startswith("no way keeps the budget")]

    assert str(run.state.way) == "50us"
    assert notices
    assert all(later - before >= NOTICE_SECONDS for before, later in pairwise(notices))


def test_what_was_learned_before_decides_in_the_first_window() -> None:
    before = course(300, noise=QUIET)
    before.run(CHEAP_AT_50, [(120, 50_000)])
    again = course(300, noise=QUIET)
    again.state = replace(again.state, learned=before.state.learned)
    windows = again.run(CHEAP_AT_50, [(1, 50_000)])

    assert changed(windows) == [("load", "50us")]
    assert windows[0].decision.reason.startswith("the load is now 50,000 packets/s: there 50us has p99 1")


# --- input that is no use


def test_a_budget_and_ways_are_needed() -> None:
    with pytest.raises(BadInput, match="no way of taking packets"):
        LatencyGoal(ways=(), budget_ns=1)
    with pytest.raises(BadInput, match="budget is 0 ns"):
        LatencyGoal(ways=WAYS, budget_ns=0)


def last(run: Course, **changes: object) -> Decision:
    seen = replace(run.windows[-1].seen, at=run.at + 0.5, way=run.state.way, **changes)
    decision = decide(run.state, seen, run.goal)
    run.state, run.at = decision.state, run.at + 0.5
    return decision


@pytest.mark.parametrize(
    "useless",
    [
        {"packets": 0, "cpu_seconds": 0.0, "samples": 0, "p99_ns": None},
        {"packets": None},
        {"cpu_seconds": None},
        {"seconds": 0.0},
        {"packets": -40},
    ],
)
def test_idle_windows_and_gaps_change_nothing_and_forget_nothing(useless: dict[str, object]) -> None:
    run = course(300, noise=QUIET)
    run.run(CHEAP_AT_50, [(55, 50_000)])
    assert run.state.trial is None
    way, learned = run.state.way, run.state.learned

    for _ in range(2_000):
        assert last(run, **useless).kind is None
    assert (run.state.way, run.state.learned) == (way, learned)


def test_a_trial_that_nothing_is_seen_of_is_taken_back() -> None:
    run = course(300, noise=QUIET)
    run.run(CHEAP_AT_50, [(3, 50_000)])
    assert run.state.trial is not None

    kinds = [last(run, packets=0, samples=0, p99_ns=None).kind for _ in range(10)]
    assert kinds.count("back") == 1
    assert run.state.way == INTERRUPTS


def test_where_no_latency_is_measured_nothing_is_tried() -> None:
    run = course(300, noise=Noise(samples=0))
    run.run(CHEAP_AT_50, [(120, 50_000)])
    assert changed(run.windows) == []


@pytest.mark.parametrize("jump", [-3_600.0, 7_200.0, -1e9])
def test_a_clock_that_jumps_makes_no_change_come_sooner(jump: float) -> None:
    run = course(300, noise=QUIET)
    run.run(CHEAP_AT_50, [(55, 50_000)])
    before = run.state
    run.at += jump
    decision = last(run)

    assert 0 <= decision.state.clock - before.clock <= 60
    run.run(CHEAP_AT_50, [(120, 50_000)])
    assert str(run.state.way) == "50us"


def test_a_way_that_could_not_be_made_is_taken_as_it_is_and_not_tried_again_soon() -> None:
    run = course(300, noise=QUIET)
    run.run(CHEAP_AT_50, [(3, 50_000)])
    assert run.state.way == WAYS[1]

    seen = replace(run.windows[-1].seen, at=run.at + 0.5, way=INTERRUPTS)
    assert decide(run.state, seen, run.goal).way == INTERRUPTS
    run.state = decide(run.state, seen, run.goal).state
    windows = run.run(CHEAP_AT_50, [(100, 50_000)])
    assert WAYS[1] not in {each.decision.way for each in windows}


def test_a_window_under_a_way_that_is_not_of_the_range_teaches_nothing() -> None:
    run = course(300, noise=QUIET)
    run.run(CHEAP_AT_50, [(55, 50_000)])
    before = run.state
    seen: WayWindow = replace(run.windows[-1].seen, at=run.at + 0.5, way=Way(gro_flush_timeout_ns=7_000_000))
    decision = decide(before, seen, run.goal)

    assert decision.way == before.way
    assert decision.state.learned == before.learned


def test_a_way_that_is_not_of_the_range_is_left_for_one_that_is() -> None:
    run = course(300, way=Way(gro_flush_timeout_ns=7_000_000), noise=QUIET)
    windows = run.run(CHEAP_AT_50, [(60, 50_000)])
    assert windows[0].decision.way == INTERRUPTS
    assert str(run.state.way) == "50us"


def test_a_decision_travels() -> None:
    run = course(300, noise=QUIET)
    run.run(CHEAP_AT_50, [(20, 50_000)])
    decision = run.windows[-1].decision
    assert from_json(to_json(decision), Decision) == decision


@pytest.mark.parametrize("rates", [(50_000, 90_000), (30_000, 70_000)])
def test_a_quicker_way_that_brings_more_load_by_itself_is_not_left_for_that(rates: tuple[int, int]) -> None:
    """Clients that wait for their replies send as much as is answered: another octave under each way."""
    slow, quick = rates
    goal = LatencyGoal(ways=WAYS, budget_ns=300_000)
    state, kinds = start(INTERRUPTS, Learned(identity="a closed loop")), []
    for number in range(240):
        way = state.way
        rate, p99_us = (slow, 900) if way == INTERRUPTS else (quick, 250)
        seen = WayWindow(
            way=way, seconds=0.5, at=number * 0.5, packets=rate // 2, cpu_seconds=0.4, p99_ns=p99_us * 1e3,
            p50_ns=50e3, samples=400,
        )  # fmt: skip
        decision = decide(state, seen, goal)
        state = decision.state
        kinds += [decision.kind] if decision.kind else []
    assert state.way != INTERRUPTS
    assert len(kinds) <= 12, kinds
    assert "load" not in kinds
