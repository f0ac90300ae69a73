"""Groups by load: when they are made, and that they are not made to and fro."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.adapt.grouping import DIFFER_SECONDS, MOST_GROUPS, Grouping, regrouped

LOADS = st.floats(0, 1e6)


def after(loads: list[float], seconds: float, now: Grouping | None = None, begun: float = 0.0) -> Grouping:
    """Groups when loads have been so for that long, seen twice a second."""
    now = now or Grouping.together(len(loads))
    for turn in range(int(2 * seconds) + 1):
        now = regrouped(now, loads, begun + turn / 2)
    return now


@pytest.mark.parametrize(
    ("loads", "groups"),
    [
        ([30_000, 1_000], (0, 1)),
        ([1_000, 30_000, 29_000, 1_100], (0, 1, 1, 0)),
        ([1_000, 1_900], (0, 0)),
        ([1_000, 2_000], (0, 1)),
        ([10, 0], (0, 0)),
        ([1_000, 8_000, 64_000, 512_000], (0, 0, 1, 2)),
        ([1_000, 8_000, 100_000, 900_000], (0, 0, 1, 2)),
        ([5_000], (0,)),
    ],
)
def test_loads_an_octave_apart_are_of_two_groups_and_three_at_most(loads: list[float], groups: tuple[int, ...]) -> None:
    assert after(loads, DIFFER_SECONDS - 1).groups == (0,) * len(loads)
    if len(set(groups)) < MOST_GROUPS:  # gaps that are as wide as others may be cut or not
        assert after(loads, DIFFER_SECONDS).groups == groups
    else:
        assert len(set(after(loads, DIFFER_SECONDS).groups)) == MOST_GROUPS


def test_a_moment_of_like_loads_begins_the_time_anew() -> None:
    now = after([30_000, 1_000], DIFFER_SECONDS - 1)
    now = regrouped(now, [1_000, 1_000], DIFFER_SECONDS - 0.5)
    assert after([30_000, 1_000], DIFFER_SECONDS - 1, now, DIFFER_SECONDS).groups == (0, 0)


def test_two_groups_are_one_again_when_they_are_half_an_octave_apart_and_not_before() -> None:
    apart = after([30_000, 1_000], DIFFER_SECONDS)
    assert after([1_500, 1_000], 10 * DIFFER_SECONDS, apart, 100).groups == (0, 1)
    assert after([1_400, 1_000], DIFFER_SECONDS, apart, 100).groups == (0, 0)


def test_a_clock_that_goes_back_does_not_hold_them_for_long() -> None:
    now = regrouped(Grouping.together(2), [30_000, 1_000], 1e6)
    assert after([30_000, 1_000], DIFFER_SECONDS, now).groups == (0, 1)


@given(
    st.integers(1, 6).flatmap(lambda units: st.lists(st.lists(LOADS, min_size=units, max_size=units), max_size=60)),
    st.lists(st.sampled_from([0.5, 2.0, 20.0, 31.0]), min_size=60, max_size=60),
)
def test_they_are_made_anew_no_oftener_than_promised_and_are_never_more(
    course: list[list[float]], spans: list[float]
) -> None:
    at, now = 0.0, Grouping.together(len(course[0]) if course else 1)
    made = [-1e9]
    for loads, span in zip(course, spans, strict=False):
        at += span
        before, now = now, regrouped(now, loads, at)
        if now.groups != before.groups:
            made.append(at)
        assert len(now.groups) == len(loads)
        assert len(set(now.groups)) <= MOST_GROUPS
        assert list(dict.fromkeys(now.groups)) == list(range(len(set(now.groups))))
    assert all(later - earlier >= DIFFER_SECONDS for earlier, later in pairwise(made))


@given(st.lists(LOADS, min_size=1, max_size=6), st.data())
def test_who_is_in_one_group_does_not_depend_on_the_order_of_the_units(loads: list[float], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(loads))))
    here = after(loads, DIFFER_SECONDS).groups
    there = after([loads[unit] for unit in order], DIFFER_SECONDS).groups
    pairs = {(one, other) for one in range(len(loads)) for other in range(len(loads))}
    if len(set(loads)) == len(loads) and len(set(here)) < MOST_GROUPS:
        assert {here[order[a]] == here[order[b]] for a, b in pairs} == {there[a] == there[b] for a, b in pairs}
        assert all((here[order[a]] == here[order[b]]) == (there[a] == there[b]) for a, b in pairs)
