"""What is offered: steady where drivers refresh their counters once a second, prompt where they do at each look."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.protect.ladder import CALM_SHARE, WINDOW_SECONDS
from napctl.protect.offered import Offered, OfferedRate, PacketsCounted

RATE = 100_000


def looks(seconds: float, refresh: float = 0.0, begin: float = 0.0, rate: float = RATE) -> Iterator[PacketsCounted]:
    """Of a load of `rate` from `begin` on, by counters that are refreshed each `refresh` seconds."""
    for number in range(round(seconds / WINDOW_SECONDS)):
        now = number * WINDOW_SECONDS
        told = now - now % refresh if refresh else now
        yield PacketsCounted(monotonic=1000 + now, taken=round(max(0.0, told - begin) * rate), dropped=0)


def rates(counted: Iterator[PacketsCounted]) -> list[float]:
    track = OfferedRate()
    return [track.add(each).offered for each in counted]


def test_counters_that_are_refreshed_at_each_look_tell_it_at_the_next() -> None:
    found = rates(looks(5, begin=2.0))
    assert found[:9] == [0.0] * 9
    assert found[10:] == [RATE] * (len(found) - 10)


@pytest.mark.parametrize("refresh", [0.5, 0.75, 1.0])
def test_counters_that_stand_still_for_a_second_never_show_a_steady_load_as_a_burst_or_as_calm(refresh: float) -> None:
    found = rates(looks(30, refresh))[8:]
    assert max(found) == pytest.approx(RATE)
    assert all(max(found[at : at + 4]) > CALM_SHARE * RATE for at in range(len(found) - 4))
    assert min(found) > RATE / 2.2


@given(st.floats(0.0, 1.2), st.floats(0, 3))
def test_no_load_is_ever_told_as_much_more_than_it_is(refresh: float, begin: float) -> None:
    most = max(rates(looks(20, refresh, begin)))
    assert most <= RATE * (1 + WINDOW_SECONDS / max(refresh - WINDOW_SECONDS, WINDOW_SECONDS))


def test_when_it_ends_it_falls_at_once_and_is_nothing_after_two_seconds() -> None:
    track = OfferedRate()
    *_, last = [*map(track.add, looks(3))]
    assert last.offered == RATE
    end = [*looks(3)][-1]
    after = [
        track.add(PacketsCounted(end.monotonic + each * WINDOW_SECONDS, end.taken, 0)).offered for each in range(1, 12)
    ]
    assert after[0] == RATE / 2
    assert after[8:] == [0.0] * 3


def test_what_comes_after_a_long_silence_is_not_spread_over_it() -> None:
    track = OfferedRate()
    for at in (0.0, 60.0):
        track.add(PacketsCounted(at, 5, 0))
    assert track.add(PacketsCounted(60.25, 25_005, 0)).offered == 12_500.0
    assert track.add(PacketsCounted(60.5, 50_005, 0)).offered == 100_000.0


def test_ring_drops_count_as_offered_also_those_that_the_other_end_of_a_veth_tells() -> None:
    track = OfferedRate()
    track.add(PacketsCounted(0, 10, 20, 30))
    assert track.add(PacketsCounted(1, 15, 26, 37)) == Offered(offered=18.0, dropped=13.0)
    assert track.add(PacketsCounted(2, 15, 26, None)) == Offered(offered=0.0, dropped=0.0)


def test_a_counter_that_fell_or_is_not_told_is_a_gap_and_no_calm() -> None:
    for gap in (PacketsCounted(2, 0, 0), PacketsCounted(2, 200, -1), None):
        track = OfferedRate()
        assert not track.add(PacketsCounted(0, 100, 0)).is_known
        assert track.add(PacketsCounted(1, 200, 0)) == Offered(offered=100.0)
        assert not track.add(gap).is_known
        if gap is not None:
            assert track.add(PacketsCounted(3, gap.taken + 50, gap.dropped)) == Offered(offered=50.0)


def storm(
    *, counts_all: bool, refresh: float = 0.0, other: int = 20_000, begin: float = 5.0
) -> Iterator[PacketsCounted]:
    """Storm control begins to drop all but `other` of a load of RATE, by a driver that counts that or not."""
    for number in range(round(20 / WINDOW_SECONDS)):
        now = number * WINDOW_SECONDS
        limited = round(max(0.0, now - begin) * (RATE - other))
        told = now - now % refresh if refresh else now
        lacking = 0 if counts_all else round(max(0.0, told - begin) * (RATE - other))
        yield PacketsCounted(monotonic=now, taken=round(told * RATE) - lacking, dropped=0, limited=limited)


@pytest.mark.parametrize("counts_all", [True, False])
@pytest.mark.parametrize("refresh", [0.0, 1.0])
@pytest.mark.parametrize("other", [0, 20_000, 60_000])
@pytest.mark.parametrize("begin", [5.0, 5.6])
def test_what_storm_control_drops_is_offered_whether_a_driver_counts_it_or_not(
    counts_all: bool, refresh: float, other: int, begin: float
) -> None:
    found = rates(storm(counts_all=counts_all, refresh=refresh, other=other, begin=begin))
    steady = found[round(10 / WINDOW_SECONDS) :]
    assert all(max(steady[at : at + 4]) == pytest.approx(RATE, rel=0.05) for at in range(len(steady) - 4))
    assert max(found) <= RATE * 1.05


def test_a_driver_that_is_known_stays_known_and_the_end_of_a_storm_is_seen() -> None:
    track = OfferedRate()
    for each in storm(counts_all=False):
        track.add(each)
    last = [*storm(counts_all=False)][-1]
    for number in range(1, 20):
        now = last.monotonic + number * WINDOW_SECONDS
        found = track.add(PacketsCounted(now, last.taken + number * 5_000, 0, None, last.limited))
    assert found.offered == pytest.approx(20_000)


def test_limits_that_nobody_saw_being_set_are_no_calm() -> None:
    found = rates(PacketsCounted(number / 4, number * 20_000, 0, None, number * 25_000) for number in range(40))
    assert min(found[2:]) >= 100_000
