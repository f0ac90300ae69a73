"""Percentiles of a load's histogram."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.lab.load import LoadResult
from napctl.model.value import from_json, to_json

BUCKETS = st.dictionaries(st.integers(1, 10**7).map(float), st.integers(1, 10**6), max_size=50)
SHARES = st.floats(0.001, 1)


def result(histogram: dict[float, int]) -> LoadResult:
    answered = sum(histogram.values())
    return LoadResult(
        seed=1,
        seconds=1,
        asked_per_second=answered,
        achieved_per_second=answered,
        sent=answered,
        answered=answered,
        unanswered=0,
        late_share=0,
        cpu_share=1,
        busy_share=0.1,
        histogram=tuple(sorted(histogram.items())),
    )


@given(BUCKETS.filter(bool), SHARES)
def test_at_least_the_share_lies_below_and_less_than_it_below_the_bucket_before(
    histogram: dict[float, int], share: float
) -> None:
    found = result(histogram).percentile_us(share)
    assert found is not None
    wanted = share * sum(histogram.values())
    assert sum(count for upper, count in histogram.items() if upper <= found) >= wanted
    assert sum(count for upper, count in histogram.items() if upper < found) < wanted


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=200), SHARES)
def test_with_a_bucket_for_every_value_it_is_the_nearest_rank(latencies: list[int], share: float) -> None:
    counts = {float(each): latencies.count(each) for each in latencies}
    rank = max(1, math.ceil(share * len(latencies)))
    assert result(counts).percentile_us(share) == sorted(latencies)[rank - 1]


@given(BUCKETS.filter(bool), SHARES, SHARES)
def test_a_larger_share_never_has_a_smaller_latency(histogram: dict[float, int], one: float, other: float) -> None:
    values = [result(histogram).percentile_us(share) for share in sorted((one, other))]
    assert values[0] is not None
    assert values[1] is not None
    assert values[0] <= values[1]


@given(BUCKETS)
def test_it_survives_json(histogram: dict[float, int]) -> None:
    assert from_json(to_json(result(histogram)), LoadResult) == result(histogram)


def test_without_answers_there_is_no_percentile() -> None:
    empty = result({})
    assert (empty.p50_us, empty.p99_us, empty.p999_us) == (None, None, None)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 10), (0.51, 20), (0.99, 20), (1.0, 30)])
def test_known_values(share: float, expected: float) -> None:
    uppers = [10.0, 20.0, 30.0]
    assert result(dict(zip(uppers, (50, 49, 1), strict=True))).percentile_us(share) == expected
