"""Promises of the packets-per-poll histogram."""

from hypothesis import given
from hypothesis import strategies as st

from napctl.model.histogram import EMPTY, Histogram, total
from napctl.model.value import from_json, to_json

polls = st.dictionaries(st.integers(0, 300), st.integers(0, 10**12), max_size=20)


@given(polls)
def test_no_poll_and_no_packet_is_lost(found: dict[int, int]) -> None:
    histogram = Histogram.of(found)
    assert histogram.polls == sum(found.values())
    assert histogram.packets == sum(packets * times for packets, times in found.items())
    assert histogram.empty == found.get(0, 0)


@given(polls, polls)
def test_a_difference_is_what_was_added(first: dict[int, int], second: dict[int, int]) -> None:
    a, b = Histogram.of(first), Histogram.of(second)
    assert (a + b) - a == b
    assert total([a, b, EMPTY]) == a + b


@given(polls)
def test_json_brings_back_the_same_value(found: dict[int, int]) -> None:
    histogram = Histogram.of(found)
    assert from_json(to_json(histogram), Histogram) == histogram


def test_the_published_histograms_have_their_published_share_of_empty_polls() -> None:
    before = Histogram.of({0: 298525, 1: 233080, 2: 15828, 3: 2180, 4: 750})
    after = Histogram.of({0: 177186, 1: 228985, 2: 16056, 3: 2066, 4: 831})
    assert round(100 * (before.empty_share or 0), 1) == 54.2
    assert round(100 * (after.empty_share or 0), 1) == 41.7


def test_without_polls_there_is_no_share() -> None:
    assert EMPTY.empty_share is None
