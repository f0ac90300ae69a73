"""The ways of a range: what is chosen among."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from napctl.adapt.ways import INTERRUPTS, Way, WayWindow, ways_between
from napctl.model.errors import BadInput
from napctl.model.value import from_json, to_json

TIMERS = st.integers(1, 19_999_999)


def timers(shortest_ns: int, longest_ns: int) -> list[int | None]:
    return [way.gro_flush_timeout_ns for way in ways_between(shortest_ns, longest_ns)]


def test_the_default_range_has_interrupts_and_four_timers() -> None:
    assert timers(20_000, 200_000) == [None, 20_000, 50_000, 100_000, 200_000]


def test_other_ranges_keep_their_ends() -> None:
    assert timers(30_000, 30_000) == [None, 30_000]
    assert timers(30_000, 40_000) == [None, 30_000, 40_000]
    assert timers(45_000, 1_000_000) == [None, 45_000, 100_000, 200_000, 500_000, 1_000_000]


@given(TIMERS, TIMERS)
@example(1334, 7499)
def test_timers_ascend_inside_the_range_a_little_apart(one: int, other: int) -> None:
    shortest, longest = sorted((one, other))
    first, *rest = timers(shortest, longest)

    found = [each for each in rest if each is not None]
    assert first is None
    assert found == rest
    assert (found[0], found[-1]) == (shortest, longest)
    assert all(before < after <= 1.5 * 2.5 * 1.5 * before for before, after in pairwise(found))  # 2 and 5 left out
    assert all(after >= 1.5 * before for before, after in pairwise(found[:-1]))


def test_an_empty_range_and_one_that_reaches_the_suspend_timer_are_refused_and_both_ends_named() -> None:
    with pytest.raises(BadInput, match="200us to 20us is empty"):
        ways_between(200_000, 20_000)
    with pytest.raises(BadInput, match="begins at 0: a timer is longer"):
        ways_between(0, 20_000)
    with pytest.raises(BadInput, match=r"ends at 30ms, but the suspend timer .* is 20ms"):
        ways_between(20_000, 30_000_000)
    with pytest.raises(BadInput, match=r"ends at 200us, but the suspend timer .* is 150us"):
        ways_between(20_000, 200_000, irq_suspend_timeout_ns=150_000)


def test_they_are_called_as_in_settings_and_travel() -> None:
    assert [str(way) for way in ways_between(20_000, 200_000)] == ["interrupts", "20us", "50us", "100us", "200us"]
    seen = WayWindow(
        way=Way(gro_flush_timeout_ns=20_000), seconds=0.5, at=7.5, packets=None, cpu_seconds=None, p99_ns=None,
        p50_ns=None, samples=0,
    )  # fmt: skip
    assert from_json(to_json(seen), WayWindow) == seen
    assert Way(gro_flush_timeout_ns=None) == INTERRUPTS
