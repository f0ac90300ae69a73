"""Limits of storm control."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.limits import HIGHEST_RATE
from napctl.model.storm import PASSING, limits_of

SLOWEST_TICK_S = 0.01
"""CONFIG_HZ=100: so coarse is the clock by which the program fills a bucket."""


@given(st.integers(1, HIGHEST_RATE))
def test_a_burst_covers_what_comes_between_two_ticks(rate: int) -> None:
    limits = limits_of(rate)
    assert limits.burst_packets >= rate * SLOWEST_TICK_S
    assert limits.burst_packets < 2**32
    assert not limits.passing


@pytest.mark.parametrize("rate", [0, -1, HIGHEST_RATE + 1])
def test_a_rate_that_cannot_be_kept_is_refused(rate: int) -> None:
    with pytest.raises(ValueError, match="packets per second must be"):
        limits_of(rate)


def test_without_a_reason_everything_passes() -> None:
    assert PASSING.passing
    assert limits_of(5, broadcast=False, multicast=False, no_listener=False).passing
