"""When windows begin and end: one upon the other while there is something to find out, else seldom."""

import pytest
from msgspec.structs import replace

from napctl.adapt.controller import RECENT, WINDOW_SECONDS
from napctl.adapt.pace import LONGEST_SEEN_NS, SETTLED_SECONDS, WindowSpan, followed, has_begun, has_ended, next_span
from tests.unit.adapt.worlds import Course, Noise, World, course

LOAD = 20_000.0


def constant(p99_us: float) -> World:
    return lambda way, load, at: (20e-6, p99_us * 1e3)


def settled(p99_us: float) -> Course:
    """In a world where nothing is to be found out any more."""
    run = course(300, noise=Noise(cost=0.0, p99=0.0))
    run.run(constant(p99_us), [(120, LOAD)])
    assert run.state.trial is None
    return run


@pytest.mark.parametrize("p99_us", [100, 900], ids=["the budget is kept", "it is broken, by every way"])
def test_where_nothing_is_to_be_found_out_nobody_looks_for_three_quarters_of_the_time(p99_us: float) -> None:
    run = settled(p99_us)
    span = followed(1_000.0, run.state, run.goal)

    assert not has_begun(span, 1_000.0)
    assert has_begun(span, 1_000.0 + SETTLED_SECONDS - WINDOW_SECONDS)
    assert not has_ended(span, 1_000.0 + SETTLED_SECONDS - WINDOW_SECONDS)
    assert has_ended(span, 1_000.0 + SETTLED_SECONDS)
    windows = run.run(constant(p99_us), [(200, LOAD)])
    assert sum(each.seen.seconds for each in windows) == pytest.approx(200 * WINDOW_SECONDS / SETTLED_SECONDS, rel=0.1)
    assert sum(each.seen.seconds + each.seen.rested for each in windows) == pytest.approx(200, rel=0.1)


def test_what_is_in_a_hurry_is_looked_at_all_the_time() -> None:
    """A trial, a load that is new, a budget that was kept and is broken."""
    run = settled(100)
    new = replace(run.state, recent=run.state.recent[: RECENT - 1])
    broken = replace(run.state, recent=(*run.state.recent[1:], replace(run.state.recent[0], p99_ns=900e3)))
    for state in (new, broken):
        assert has_begun(followed(1_000.0, state, run.goal), 1_000.0)


def test_another_load_is_looked_at_at_once_also_amid_a_rest() -> None:
    run = settled(100)
    rest = followed(1_000.0, run.state, run.goal)

    assert next_span(rest, 1_000.5, LOAD, 1.1 * LOAD) == rest
    span = next_span(rest, 1_000.5, LOAD, 1.5 * LOAD)
    assert span == WindowSpan(1_000.5, again=True)


def test_what_was_not_looked_at_fades_like_the_rest() -> None:
    """What is old counts half after an hour of traffic, however much of that was looked at."""
    run = settled(100)
    before = run.state.learned.traffic_seconds
    run.run(constant(100), [(600, LOAD)])
    assert run.state.learned.traffic_seconds - before == pytest.approx(600, rel=0.02)


@pytest.mark.parametrize("budget_ns", [100_000, 100_000_000], ids=["a broken budget", "a budget that is kept"])
def test_where_waits_are_long_or_not_seen_at_all_it_is_looked_at_all_the_time(budget_ns: int) -> None:
    """What came in a rest is not known: of a queue of more than a window nothing would ever be seen."""
    run = settled(100)
    goal = replace(run.goal, budget_ns=budget_ns)

    def rests(p99_ns: float | None, windows: int = RECENT, *, until_poll_only: bool = False) -> bool:
        spoiled = [
            replace(each, p99_ns=p99_ns, until_poll_only=until_poll_only) for each in run.state.recent[-windows:]
        ]
        state = replace(run.state, recent=(*run.state.recent[:-windows], *spoiled))
        return not has_begun(followed(1_000.0, state, goal), 1_000.0)

    assert rests(0.9 * LONGEST_SEEN_NS)
    assert not rests(1.1 * LONGEST_SEEN_NS)
    assert not rests(None)
    assert not rests(None, windows=1)
    assert rests(1.1 * LONGEST_SEEN_NS, until_poll_only=True), "polls are counted all the time"
