"""Promises of the counts of suspension: windows, percentiles, and the buckets of waits."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.suspension_counts import WAIT_BOUNDS_US, WAIT_BUCKETS, SuspensionCounts
from napctl.model.value import from_json, to_json

COUNT = st.integers(0, 2**63)
WAITS = st.lists(st.integers(0, 10**9) | st.just(0), min_size=WAIT_BUCKETS, max_size=WAIT_BUCKETS).map(tuple)
COUNTS = st.builds(
    SuspensionCounts,
    napi_id=st.just(259),
    netns=st.just(4026531833),
    arms=COUNT,
    suspensions=COUNT,
    resumes=COUNT,
    timeouts=COUNT,
    suspended_ns=COUNT,
    waits=WAITS,
)
SHARE = st.floats(0, 1)


def waiting(**packets_by_bucket: int) -> SuspensionCounts:
    """waiting(b3=5): five packets in bucket 3."""
    waits = [packets_by_bucket.get(f"b{bucket}", 0) for bucket in range(WAIT_BUCKETS)]
    return SuspensionCounts(napi_id=1, netns=2, waits=tuple(waits))


@given(COUNTS, COUNTS)
def test_a_difference_is_what_was_added(first: SuspensionCounts, second: SuspensionCounts) -> None:
    assert (first + second) - first == second
    assert first - first == SuspensionCounts(napi_id=first.napi_id, netns=first.netns)


@given(COUNTS)
def test_json_brings_back_the_same_value(counts: SuspensionCounts) -> None:
    assert from_json(to_json(counts), SuspensionCounts) == counts


@pytest.mark.parametrize(("napi_id", "netns"), [(2, 2), (1, 3)])
def test_two_instances_have_no_difference(napi_id: int, netns: int) -> None:
    with pytest.raises(ValueError, match="two instances"):
        SuspensionCounts(napi_id=napi_id, netns=netns) - SuspensionCounts(napi_id=1, netns=2)


def test_waits_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="67 buckets"):
        SuspensionCounts(napi_id=1, netns=2, waits=(0, 1))


@given(COUNTS, SHARE)
def test_a_percentile_is_the_least_bound_that_holds_the_share(counts: SuspensionCounts, share: float) -> None:
    found = counts.wait_percentile_us(share)

    if not counts.packets:
        assert found is None
        return
    assert found is not None
    bucket = WAIT_BOUNDS_US.index(found)
    assert counts.waits[bucket]
    assert sum(counts.waits[: bucket + 1]) >= share * counts.packets * (1 - 1e-12)
    assert sum(counts.waits[:bucket]) <= share * counts.packets * (1 + 1e-12)


@given(COUNTS, SHARE, SHARE)
def test_percentiles_grow_with_the_share(counts: SuspensionCounts, one: float, other: float) -> None:
    if counts.packets:
        low, high = (counts.wait_percentile_us(share) for share in sorted((one, other)))
        assert low is not None
        assert high is not None
        assert low <= high


def test_percentiles_of_a_known_histogram() -> None:
    counts = waiting(b0=90, b2=9, b66=1)

    assert counts.packets == 100
    assert counts.wait_percentile_us(0.5) == 0
    assert counts.wait_percentile_us(0.9) == 0
    assert counts.wait_percentile_us(0.99) == 1.28
    assert counts.wait_percentile_us(1) == math.inf
    assert waiting(b5=1).wait_percentile_us(0) == waiting(b5=1).wait_percentile_us(1) == 2.048
    assert waiting().wait_percentile_us(0.5) is None


def test_buckets_are_four_for_each_power_of_two_from_1_us_to_67_ms() -> None:
    assert WAIT_BOUNDS_US[:6] == (0, 1.024, 1.28, 1.536, 1.792, 2.048)
    assert WAIT_BOUNDS_US[-2:] == (2**26 / 1000, math.inf)
    assert all(low < high for low, high in pairwise(WAIT_BOUNDS_US))
    assert all(high <= low * 1.25 for low, high in pairwise(WAIT_BOUNDS_US[1:-1]))
