"""What is learned, and how it is forgotten."""

from math import log
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.adapt.learned import (
    BEYOND,
    HALF_LIFE_SECONDS,
    MOST_WINDOWS,
    Learned,
    Pool,
    learned_before,
    load_of,
    octave_of,
)
from napctl.adapt.ways import INTERRUPTS, Way, WayWindow
from napctl.model.value import from_json, to_json

LATER = Way(gro_flush_timeout_ns=100_000)


def seen(way: Way = INTERRUPTS, *, p99_us: float | None = 100, cost_us: float = 20, load: float = 20_000) -> WayWindow:
    return WayWindow(
        way=way, seconds=0.5, at=1.0, packets=round(load / 2), cpu_seconds=cost_us * 1e-6 * load / 2,
        p99_ns=None if p99_us is None else p99_us * 1e3, p50_ns=None, samples=500,
    )  # fmt: skip


def learned(*windows: tuple[int, WayWindow]) -> Learned:
    found = Learned(identity="memcached on 6.18")
    for octave, window in windows:
        found = found.with_one(octave, window)
    return found


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=30))
def test_a_pool_has_mean_and_variance_of_its_values(values: list[float]) -> None:
    pool = Pool()
    for value in values:
        pool = pool.with_one(value)

    assert pool.weight == len(values)
    assert pool.mean == pytest.approx(fmean(values), abs=1e-9)
    assert pool.variance == pytest.approx(pvariance(values), abs=1e-9)


def test_a_cell_that_weighs_its_most_follows_what_is_new() -> None:
    found = learned(*[(14, seen(p99_us=100))] * 500, *[(14, seen(p99_us=400))] * 500)

    cell = found.cell(14, INTERRUPTS)
    assert cell.p99.weight == pytest.approx(MOST_WINDOWS)
    assert cell.p99.typical == pytest.approx(400e3, rel=0.05)


def test_what_was_seen_counts_half_after_an_hour_of_traffic_and_idle_hours_forget_nothing() -> None:
    found = learned((14, seen()), (14, seen()))
    hour = replace(found, traffic_seconds=found.traffic_seconds + HALF_LIFE_SECONDS)

    assert found.cell(14, INTERRUPTS).cost.weight == pytest.approx(2, rel=0.01)
    assert hour.cell(14, INTERRUPTS).cost.weight == pytest.approx(1, rel=0.01)
    assert hour.cell(14, INTERRUPTS).cost.typical == pytest.approx(20e-6)


def test_another_server_kernel_or_driver_learns_anew_and_so_does_another_version() -> None:
    found = learned((14, seen()))

    assert learned_before(found, "memcached on 6.18") == found
    assert learned_before(found, "memcached on 7.3").cells == ()
    assert learned_before(replace(found, version=0), "memcached on 6.18").cells == ()
    assert learned_before(None, "memcached on 6.18") == Learned(identity="memcached on 6.18")


def test_it_travels() -> None:
    found = learned((14, seen()), (15, seen(LATER, p99_us=None)))
    assert from_json(to_json(found), Learned) == found


def test_few_samples_count_in_part_and_very_few_not_at_all() -> None:
    cells = [learned((14, replace(seen(), samples=samples))).cell(14, INTERRUPTS) for samples in (0, 19, 50, 1_000)]
    assert [cell.p99.weight for cell in cells] == [0, 0, 0.5, 1]
    assert [cell.cost.weight for cell in cells] == [1, 1, 1, 1]


def test_what_the_server_needs_by_itself_is_the_least_p99_of_interrupts_at_a_light_load() -> None:
    light = [(12, seen(p99_us=80, load=5_000)), (12, seen(LATER, p99_us=60, load=5_000))] * 2
    heavy = [(15, seen(p99_us=50, load=60_000))] * 2

    assert learned(*heavy).own_p99_ns == 0  # nothing was seen of it without others before it
    assert learned(*heavy, *light).own_p99_ns == pytest.approx(80e3)


def test_a_latency_of_another_kind_is_no_comparison() -> None:
    found = learned((14, seen()), (14, seen()), (14, replace(seen(LATER), until_poll_only=True)))

    assert found.cell(14, INTERRUPTS).p99.weight == 0
    assert found.cell(14, INTERRUPTS).cost.weight > 1
    assert found.cell(14, LATER).p99.weight == 1
    assert found.own_p99_ns == 0


def test_a_load_that_hovers_about_the_edge_of_an_octave_stays_in_it() -> None:
    assert octave_of(2.0**14 * 1.01, None) == 14
    assert octave_of(2.0**14 * 0.99, None) == 13
    assert octave_of(2.0**14 * 0.9, 14) == 14
    assert octave_of(2.0**15 * 1.15, 14) == 14
    assert octave_of(2.0 ** (15 + BEYOND), 14) == 15
    assert octave_of(60_000, 12) == 15


def test_gaps_and_idle_windows_have_no_load() -> None:
    assert load_of(seen(load=20_000)) == 20_000
    assert load_of(replace(seen(load=20_000), instances=4)) == 5_000
    assert load_of(replace(seen(), packets=None)) is None
    assert load_of(replace(seen(), cpu_seconds=None)) is None
    assert load_of(replace(seen(), packets=0)) is None
    assert load_of(replace(seen(), packets=-5)) is None
    assert load_of(replace(seen(), seconds=0.0)) is None


def test_the_next_octave_is_asked_where_nothing_is_known() -> None:
    found = learned((14, seen(p99_us=100)), (14, seen(p99_us=100)), (16, seen(p99_us=900)), (16, seen(p99_us=900)))

    assert found.near(14, INTERRUPTS).p99.mean == pytest.approx(log(100e3))
    assert found.near(15, INTERRUPTS).octave == 14
    assert found.near(17, INTERRUPTS).octave == 16
    assert found.near(18, INTERRUPTS).p99.weight == 0
