"""Times as people write and read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.units import NS_PER, duration_ns, duration_text, long_duration_text

HOUR, MINUTE, SECOND = NS_PER["h"], NS_PER["m"], NS_PER["s"]


@given(st.integers(min_value=0, max_value=10**15))
def test_a_time_is_read_as_it_is_shown(ns: int) -> None:
    assert duration_ns(duration_text(ns)) == ns


@pytest.mark.parametrize(
    ("text", "ns"), [("30m", 30 * MINUTE), ("1.5h", 90 * MINUTE), ("20ms", 20_000_000), ("7µs", 7_000), ("0", 0)]
)
def test_each_unit_is_known(text: str, ns: int) -> None:
    assert duration_ns(text) == ns


@pytest.mark.parametrize("text", ["30", "m", "1 m", "1d", "-1s", ""])
def test_what_has_no_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time with its unit"):
        duration_ns(text)


@pytest.mark.parametrize(
    ("ns", "words"),
    [(0, "0s"), (1, "1s"), (59 * SECOND, "59s"), (30 * MINUTE, "30m"), (HOUR + 5 * MINUTE, "1h 5m"),
     (48 * HOUR + 1, "48h 1s")],
)  # fmt: skip
def test_times_that_people_wait_are_told_to_the_second(ns: int, words: str) -> None:
    assert long_duration_text(ns) == words
