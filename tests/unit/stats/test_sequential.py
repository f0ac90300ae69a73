"""Promises of the statistics: orders that are balanced, intervals that hold, no certainty from few counts."""

import random
from itertools import islice
from math import exp, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.stats.sequential import CONFIDENCE, Counted, Pair, interval, is_look, orders, pairs_needed
from napctl.stats.student import critical

PUBLISHED = {1: 63.657, 2: 9.925, 3: 5.841, 4: 4.604, 5: 4.032, 8: 3.355, 11: 3.106, 30: 2.750, 120: 2.617}
"""Of Student's distribution, two-sided 99 % (any table of it)."""


@pytest.mark.parametrize(("freedom", "quantile"), PUBLISHED.items())
def test_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert critical(0.01, freedom) == pytest.approx(quantile, abs=6e-4)


@given(st.integers(0, 2**32))
def test_of_each_two_pairs_one_begins_with_the_setting(seed: int) -> None:
    found = list(islice(orders(seed), 20))

    assert all(first != second for first, second in zip(found[::2], found[1::2], strict=True))
    assert found == list(islice(orders(seed), 20)), "the seed alone decides"


def test_seeds_give_different_orders() -> None:
    assert len({tuple(islice(orders(seed), 20)) for seed in range(200)}) > 150


def pair(on: float, off: float, per: float = 1000) -> Pair:
    return Counted(events=on, per=per), Counted(events=off, per=per)


counts = st.floats(0, 1e6)
some_pairs = st.lists(st.builds(pair, counts, counts), min_size=2, max_size=30)


@given(some_pairs)
def test_an_interval_holds_its_ratio_and_swapping_the_arms_inverts_it(pairs: list[Pair]) -> None:
    found, swapped = interval(pairs), interval([(off, on) for on, off in pairs])

    assert found is not None
    assert swapped is not None
    assert 0 < found.low <= found.ratio <= found.high
    assert isclose(found.low * swapped.high, 1, rel_tol=1e-6)
    assert isclose(found.ratio * swapped.ratio, 1, rel_tol=1e-6)


@given(some_pairs)
def test_an_interval_says_one_thing_at_most(pairs: list[Pair]) -> None:
    found = interval(pairs)

    assert found is not None
    assert [found.below, found.above, found.equal].count(True) <= 2
    assert not (found.below and found.above)


@given(st.floats(0.01, 100), st.integers(2, 12))
def test_what_changes_both_windows_of_a_pair_alike_does_not_matter(factor: float, number: int) -> None:
    """Traffic that doubles from pair to pair, at a constant ratio."""
    steady = interval([pair(1e5 * factor, 1e5)] * number)
    growing = interval([pair(1e5 * factor * 2**n, 1e5 * 2**n) for n in range(number)])

    assert steady is not None
    assert growing is not None
    assert growing.ratio == pytest.approx(steady.ratio, rel=1e-3)


def test_few_and_equal_counts_are_no_certainty() -> None:
    few, many = interval([pair(3, 3)] * 6), interval([pair(3000, 3000)] * 6)

    assert few is not None
    assert many is not None
    assert not few.equal
    assert many.equal


def test_fewer_than_two_pairs_and_windows_without_packets_say_nothing() -> None:
    assert interval([pair(5, 5)]) is None
    assert interval([pair(5, 5), pair(0, 0, per=0), pair(1, 0, per=0)]) is None


@pytest.mark.parametrize("spread", [0.02, 0.2])
@pytest.mark.parametrize("number", [4, 12])
def test_the_interval_covers_the_truth_as_often_as_it_says(number: int, spread: float) -> None:
    noise = random.Random(number)
    missed = 0
    for _ in range(2000):
        pairs = [
            pair(3e4 * 0.5 * exp(noise.gauss(0, spread)), 3e4 * exp(noise.gauss(0, spread))) for _ in range(number)
        ]
        found = interval(pairs)
        assert found is not None
        missed += not found.low < 0.5 < found.high

    assert missed / 2000 < (1 - CONFIDENCE) * 1.7, "1 % of 2,000, and three standard deviations"


def test_looks_are_every_pair_at_first_and_become_rare() -> None:
    assert all(map(is_look, range(2, 13)))
    assert sum(map(is_look, range(13, 1001))) < 21


@given(st.floats(0.9, 1.1), st.integers(4, 12))
def test_more_pairs_are_asked_for_than_there_were(ratio: float, number: int) -> None:
    found = interval([pair(30 * ratio, 30)] * number)
    assert found is not None
    assert pairs_needed(found, number) > number
