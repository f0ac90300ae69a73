"""Summing one zone's readings: exact, or a gap. Never wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.energy.zones import FileZone
from napctl.model.energy import KINDS, Kind
from napctl.observe.energy_tally import MOST_WATTS, STILL_SECONDS, Span, Tally, seconds_between_readings

NOWHERE = Path("/nowhere")
MS = 1_000_000
S = 1000 * MS
MOST_UW = MOST_WATTS["package"] * 10**6


def counter(wrap_uj: int | None = 10**12, kind: Kind = "package") -> Tally:
    return Tally(FileZone("zone", kind, NOWHERE, wrap_uj=wrap_uj))


def power() -> Tally:
    return Tally(FileZone("meter", "platform", NOWHERE, is_power=True, interval_seconds=0.25))


def span(tally: Tally, readings: Sequence[tuple[int, int]]) -> Span:
    """Of all readings (ns, µJ or µW); the first is its beginning."""
    tally.add(*readings[0])
    mark = tally.mark()
    for reading in readings[1:]:
        tally.add(*reading)
    return tally.since(mark)


def test_a_counter_that_wraps_goes_on_where_it_would_have_been() -> None:
    assert span(counter(1000), [(0, 990), (1, 5), (2, 10)]) == Span(20e-6, 2e-9, "")


def test_the_same_span_may_be_asked_for_again_and_others_overlap() -> None:
    tally = counter()
    tally.add(0, 100)
    first = tally.mark()
    tally.add(S, 1100)
    second = tally.mark()
    tally.add(2 * S, 3100)

    assert tally.since(first) == tally.since(first) == Span(3000e-6, 2.0, "")
    assert tally.since(second) == Span(2000e-6, 1.0, "")


def test_a_failed_reading_is_a_gap_for_every_span_that_contains_it_and_for_no_other() -> None:
    tally = counter()
    tally.add(0, 100)
    before = tally.mark()
    tally.add(S, 200)
    assert tally.since(before).joules == 100e-6
    tally.miss("EIO")
    assert tally.since(before) == Span(None, 0.0, "EIO")
    within = tally.mark()
    tally.add(2 * S, 300)
    after = tally.mark()
    tally.add(3 * S, 350)

    assert tally.since(before).why == "EIO"
    assert tally.since(within).why == "EIO"
    assert tally.since(after) == Span(50e-6, 1.0, "")


def test_a_zone_that_was_never_read_has_no_figure() -> None:
    tally = counter()
    mark = tally.mark()
    assert tally.since(mark).joules is None
    tally.add(0, 5)
    assert tally.since(mark).joules is None


def test_a_counter_that_is_set_back_is_a_gap_not_a_wrap() -> None:
    found = span(counter(262_144_000_000), [(0, 5_000_000_000), (S, 5_100_000_000), (2 * S, 7_000_000)])
    assert found.joules is None
    assert "set back, or jumped" in found.why
    assert "set back" in span(counter(None), [(0, 500), (S, 400)]).why


def test_a_counter_that_was_read_too_late_to_know_its_wraps_is_a_gap() -> None:
    wrap = 4000 * 10**6  # 2 s at the most power
    assert span(counter(wrap), [(0, 0), (int(1.9 * S), 10**9)]).joules == 1000
    assert "wrap more than once" in span(counter(wrap), [(0, 0), (int(2.1 * S), 10**9)]).why


def test_a_reading_beyond_the_range_is_a_gap_and_nothing_is_counted_from_it() -> None:
    tally = counter(1000)
    assert "beyond its range" in span(tally, [(0, 10), (1, 1001), (2, 20)]).why
    mark = tally.mark()
    tally.add(3, 30)
    assert tally.since(mark).joules == 10e-6


def test_a_counter_that_stands_still_has_used_an_unknown_amount_not_none() -> None:
    assert span(counter(), [(0, 7), (S, 7), (2 * S, 7)]).joules is None
    assert "did not move" in span(counter(), [(0, 7), (MS, 7)]).why


def test_a_counter_that_stops_within_a_span_is_a_gap_and_so_is_a_span_that_begins_while_it_stands() -> None:
    tally = counter()
    tally.add(0, 0)
    first = tally.mark()
    tally.add(S, 50)
    for second in (2, 3):
        tally.add(second * S, 50)
    second_mark = tally.mark()
    tally.add(4 * S, 99)
    third = tally.mark()
    tally.add(5 * S, 100)

    assert "stood still" in tally.since(first).why
    assert "stood still" in tally.since(second_mark).why
    assert tally.since(third).joules == 1e-6
    assert STILL_SECONDS <= 1


def test_a_graphics_unit_that_is_off_uses_nothing() -> None:
    assert span(counter(kind="uncore"), [(0, 7), (S, 7), (9 * S, 7)]) == Span(0.0, 9.0, "")


def test_power_is_summed_as_the_area_below_its_samples() -> None:
    watts = [(0, 100), (S, 300), (int(1.5 * S), 200)]
    assert span(power(), [(at, value * 10**6) for at, value in watts]) == Span(200 + 125, 1.5, "")


@pytest.mark.parametrize("value", [0, -5, 10**12], ids=["zero", "negative", "a megawatt"])
def test_a_power_that_no_machine_takes_is_a_gap(value: int) -> None:
    assert span(power(), [(0, 10**8), (S, value), (2 * S, 10**8)]).joules is None


def test_samples_of_a_power_that_are_far_apart_are_a_gap() -> None:
    assert "no sample for 60 s" in span(power(), [(0, 10**8), (60 * S, 10**8)]).why


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrap_uj", [10**9, 65_532_610_987, 262_144_000_000, None])
def test_a_zone_is_read_more_than_twice_for_each_wrap_and_at_least_each_second(kind: Kind, wrap_uj: int | None) -> None:
    zone = FileZone("zone", kind, NOWHERE, wrap_uj=wrap_uj)
    seconds = seconds_between_readings(zone)
    assert seconds <= 1
    if wrap_uj is not None:
        assert seconds * 2 * MOST_WATTS[kind] * 10**6 < wrap_uj


@dataclass(frozen=True)
class Read:
    """What happens until the next reading, and how that goes."""

    ns: int
    mean_uw: int
    fails: bool
    marks: bool


READS = st.builds(
    Read,
    ns=st.integers(1, 50 * MS) | st.integers(50 * MS, 900 * MS) | st.integers(S, 400 * S),
    mean_uw=st.integers(0, MOST_UW) | st.integers(0, 500 * 10**6),
    fails=st.sampled_from((False,) * 9 + (True,)),
    marks=st.booleans(),
)


@given(unit_nj=st.integers(1000, 10**6), bits=st.integers(16, 32), start=st.integers(0, 2**40), reads=st.lists(READS))
def test_joules_over_any_course_of_power_are_exact_to_the_counters_resolution_or_a_gap(
    unit_nj: int, bits: int, start: int, reads: list[Read]
) -> None:
    """The counter is a register of so many bits, told in whole µJ: rapl_unit_xlate() in intel_rapl_common.c."""
    register = 2**bits
    wrap_uj = round(register * unit_nj / 1000)
    tally = counter(wrap_uj)
    now, used_fj = 0, 0
    marks = []

    def shown() -> int:
        units: int = (start + used_fj // (unit_nj * 10**6)) % register
        return units * unit_nj // 1000

    tally.add(now, shown())
    marks.append((tally.mark(), now, used_fj, 0))
    for step, read in enumerate(reads, 1):
        now += read.ns
        used_fj += read.ns * read.mean_uw
        if read.fails:
            tally.miss("EIO")
        else:
            tally.add(now, shown())
        if read.marks:
            marks.append((tally.mark(), now, used_fj, step))

    for mark, at, before_fj, done in marks:
        found = tally.since(mark)
        if found.joules is None:
            assert found.why
            continue
        wraps = (used_fj - before_fj) // (wrap_uj * 10**9) + 1
        resolution_fj = (
            unit_nj + 2000
        ) * 10**6 + wraps * 2 * 10**9  # a unit, and rounding to µJ: at each end, each wrap
        assert abs(found.joules * 1e15 - (used_fj - before_fj)) <= resolution_fj + used_fj * 1e-12
        assert found.seconds == pytest.approx((now - at) / 1e9)
        assert not any(read.fails for read in reads[done:])


@given(
    watts=st.lists(st.tuples(st.integers(1, 990), st.integers(1, 2000)), min_size=1),
    wrap_uj=st.integers(3 * 10**9, 10**12),
    start=st.integers(0, 10**13),
)
def test_no_gap_is_told_where_a_counter_is_read_in_time(watts: list[tuple[int, int]], wrap_uj: int, start: int) -> None:
    tally = counter(wrap_uj)
    now, count = 0, start
    tally.add(now, count % wrap_uj)
    mark = tally.mark()
    for milliseconds, power_w in watts:
        now += milliseconds * MS
        count += milliseconds * power_w * 1000
        tally.add(now, count % wrap_uj)
    assert tally.since(mark) == Span((count - start) / 1e6, now / 1e9, "")


@given(back_to=st.integers(0, 10**9), last=st.integers(100, 10**11 - 10**10), ms=st.integers(1, 1000))
def test_a_reset_is_a_gap_wherever_the_counter_stood(back_to: int, last: int, ms: int) -> None:
    found = span(counter(10**11), [(0, last - 10), (MS, last), (MS + ms * MS, min(back_to, last // 2))])
    assert found.joules is None


@given(
    samples=st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 5000)), min_size=1),
    constant=st.booleans(),
)
def test_power_that_changes_in_straight_lines_is_summed_exactly(samples: list[tuple[int, int]], constant: bool) -> None:
    tally = power()
    tally.add(0, 10**6)
    mark = tally.mark()
    now, before, area = 0, 1, 0.0
    for milliseconds, watts in samples:
        level = 1 if constant else watts
        now += milliseconds
        area += (before + level) / 2 * milliseconds / 1000
        tally.add(now * MS, level * 10**6)
        before = level
    found = tally.since(mark)
    assert found.joules == pytest.approx(area)
    assert found.seconds == pytest.approx(now / 1000)
