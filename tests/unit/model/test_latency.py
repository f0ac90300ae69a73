"""Histograms of latencies: percentiles good to 10 %, differences, sums."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.latency import (
    BOUNDS_NS,
    BUCKETS,
    NOTHING,
    LatencyHistogram,
    ProcessLatency,
    ServerLatency,
    latency_between,
)
from napctl.model.value import from_json, to_json

TIMES = st.lists(st.integers(2_000, 10**10), min_size=1, max_size=200)


def histogram(*times_ns: int) -> LatencyHistogram:
    counts = [0] * BUCKETS
    for ns in times_ns:
        counts[max(index for index, begin in enumerate(BOUNDS_NS) if begin <= ns)] += 1
    return LatencyHistogram(counts=tuple(counts))


@given(TIMES, st.floats(0.01, 1.0))
def test_a_percentile_is_good_to_an_eighth(times: list[int], share: float) -> None:
    true = sorted(times)[max(0, math.ceil(share * len(times) - 1e-9) - 1)]
    told = histogram(*times).percentile_ns(share)
    assert told is not None
    assert true * 8 / 9 <= told <= true * 9 / 8 + 1


@given(TIMES)
def test_percentiles_rise_with_their_share(times: list[int]) -> None:
    found = [histogram(*times).percentile_ns(share / 20) for share in range(21)]
    assert found == sorted(each for each in found if each is not None)


def test_within_a_bucket_samples_are_spread_evenly() -> None:
    assert histogram(*[2**20] * 100).percentile_ns(0.5) == 2**20 * (1 + 1 / 16)


def test_of_no_sample_there_is_no_percentile() -> None:
    assert NOTHING.percentile_ns(0.99) is None


def test_beyond_the_last_bound_it_tells_the_last_bound() -> None:
    assert histogram(2**40).percentile_ns(0.99) == 2**34


@given(TIMES, TIMES)
def test_a_difference_takes_back_what_a_sum_added(one: list[int], other: list[int]) -> None:
    assert histogram(*one) + histogram(*other) == histogram(*one, *other)
    assert histogram(*one, *other) - histogram(*one) == histogram(*other)


def test_a_window_is_what_came_between_two_readings_of_each_process() -> None:
    first = ProcessLatency(pid=1, until_read=histogram(5_000))
    idle = ProcessLatency(pid=2, until_read=histogram(7_000))
    later = ProcessLatency(pid=1, until_read=histogram(5_000, 9_000), until_reply=histogram(11_000))
    new = ProcessLatency(pid=3, until_read=histogram(13_000))
    window = latency_between([first, idle], [new, later, idle])
    assert window == (ProcessLatency(pid=1, until_read=histogram(9_000), until_reply=histogram(11_000)), new)
    together = ServerLatency(seconds=1.0, processes=window).together
    assert together is not None
    assert together.until_read == histogram(9_000, 13_000)


def test_two_processes_have_no_difference() -> None:
    with pytest.raises(ValueError, match="two processes"):
        ProcessLatency(pid=1) - ProcessLatency(pid=2)


def test_it_survives_json() -> None:
    value = ServerLatency(seconds=1.0, processes=(ProcessLatency(pid=1, until_read=histogram(5_000)),), lacks=("a",))
    assert from_json(to_json(value), ServerLatency) == value


def test_a_histogram_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="buckets"):
        LatencyHistogram(counts=(1, 2))
