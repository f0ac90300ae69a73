"""Promises of the model: it promises no more effect than a driver that obeys really has, whatever the traffic."""

import heapq
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.settings import NapiSettings
from napctl.verify.expected import SHOWABLE, Expectation, InstanceLoad, of_deferral, of_delay, of_frames

SECONDS = 5.0


def poisson(rate: float, noise: random.Random) -> Iterator[float]:
    now = 0.0
    while True:
        now += noise.expovariate(rate)
        yield now


def bursts(rate: float, noise: random.Random) -> Iterator[float]:
    """Eight packets within 20 µs of each other, then a pause."""
    for begin in poisson(rate / 8, noise):
        yield from (begin + n * 20e-6 for n in range(8))


def open_loop(arrivals: Iterator[float], delay_s: float, frames: int) -> tuple[int, int]:
    """(interrupts, packets): an interrupt comes `delay_s` after the first packet, or with the last of `frames`."""
    interrupts = packets = waiting = 0
    due = float("inf")
    for now in arrivals:
        if now > due:
            interrupts, waiting, due = interrupts + 1, 0, float("inf")
        if now > SECONDS:
            return interrupts, packets
        packets, waiting = packets + 1, waiting + 1
        if waiting == 1:
            due = now + delay_s
        if waiting == frames:
            interrupts, waiting, due = interrupts + 1, 0, float("inf")
    raise AssertionError


def closed_loop(clients: int, think_s: float, delay_s: float, noise: random.Random) -> tuple[int, int]:
    """Clients that send their next packet only after the last was taken, and a pause."""
    arrivals = [noise.expovariate(1 / think_s) for _ in range(clients)]
    heapq.heapify(arrivals)
    interrupts = packets = 0
    while arrivals[0] < SECONDS:
        due = arrivals[0] + delay_s
        taken = 0
        while arrivals and arrivals[0] <= due:
            heapq.heappop(arrivals)
            taken += 1
        interrupts, packets = interrupts + 1, packets + taken
        for _ in range(taken):
            heapq.heappush(arrivals, due + noise.expovariate(1 / think_s))
    return interrupts, packets


Traffic = Callable[[float, random.Random], Iterator[float]]


@pytest.mark.parametrize("traffic", [poisson, bursts])
@pytest.mark.parametrize("rate", [500, 5_000, 20_000])
@pytest.mark.parametrize("delay_us", [20, 100, 1_000])
@pytest.mark.parametrize("frames", [0, 4])
def test_a_delay_that_is_obeyed_shows_at_least_what_is_expected(
    traffic: Traffic, rate: float, delay_us: int, frames: int
) -> None:
    without = open_loop(traffic(rate, random.Random(1)), 0, frames)
    obeyed = open_loop(traffic(rate, random.Random(2)), delay_us / 1e6, frames)
    load = InstanceLoad(events=without[0] / SECONDS, packets=without[1] / SECONDS)

    expected = of_delay([load], delay_us, 0, frames)

    assert expected.ratio is not None
    per_packet = (obeyed[0] / obeyed[1]) / (without[0] / without[1])
    assert per_packet < expected.ratio * 1.1


@pytest.mark.parametrize("clients", [1, 3, 30])
@pytest.mark.parametrize("delay_us", [100, 1_000])
def test_with_clients_that_wait_a_delay_shows_in_interrupts_per_second(clients: int, delay_us: int) -> None:
    without = closed_loop(clients, 1e-3, 0, random.Random(1))
    obeyed = closed_loop(clients, 1e-3, delay_us / 1e6, random.Random(2))
    load = InstanceLoad(events=without[0] / SECONDS, packets=without[1] / SECONDS)

    expected = of_delay([load], delay_us, 0, None)

    assert expected.ratio is not None
    assert obeyed[0] / without[0] < expected.ratio * 1.1


@pytest.mark.parametrize("rate", [2_000, 20_000])
@pytest.mark.parametrize("delay_us", [100, 1_000])
def test_frames_that_are_obeyed_show_at_least_what_is_expected(rate: float, delay_us: int) -> None:
    without = open_loop(poisson(rate, random.Random(1)), delay_us / 1e6, 1)
    obeyed = open_loop(poisson(rate, random.Random(2)), delay_us / 1e6, 16)
    load = InstanceLoad(events=without[0] / SECONDS, packets=without[1] / SECONDS)

    expected = of_frames([load], 16, 1, delay_us, 1.0)

    assert expected.ratio is not None
    assert (obeyed[0] / obeyed[1]) / (without[0] / without[1]) < expected.ratio * 1.1


counts = st.just(0.0) | st.floats(0.01, 1e7)
loads = st.lists(st.builds(InstanceLoad, events=counts, packets=counts), max_size=8)
values = st.integers(0, 10_000)


@given(loads, values, values, st.none() | st.integers(0, 256))
def test_swapping_the_values_inverts_the_ratio(
    loads: list[InstanceLoad], on: int, off: int, frames: int | None
) -> None:
    there, back = of_delay(loads, on, off, frames).ratio, of_delay(loads, off, on, frames).ratio
    assert there is not None
    assert back is not None
    assert there * back == pytest.approx(1)


@given(loads, values, st.none() | st.integers(0, 256))
def test_no_traffic_and_no_difference_promise_nothing(
    loads: list[InstanceLoad], value: int, frames: int | None
) -> None:
    assert of_delay([], value, 0, frames).ratio == 1
    assert not of_delay(loads, value, value, frames).showable


def enough(expected: Expectation) -> float:
    """The packets/s that it names."""
    assert expected.needs is not None
    return float(expected.needs.split()[1].replace(",", ""))


@given(st.integers(1, 10_000), st.floats(1, 1e5))
def test_the_traffic_that_would_be_enough_is_enough(delay_us: int, rate: float) -> None:
    expected = of_delay([InstanceLoad(events=rate, packets=rate)], delay_us, 0, None)
    if not expected.showable:
        named = enough(expected)
        assert named > rate
        assert of_delay([InstanceLoad(events=named, packets=named)], delay_us, 0, None).showable
        assert not of_delay([InstanceLoad(events=named / 1.3, packets=named / 1.3)], delay_us, 0, None).showable


def test_frames_alone_gather_as_many_and_those_beside_no_delay_none() -> None:
    load = InstanceLoad(events=4_000, packets=4_000)
    alone = of_frames([load], 64, 1, None, 1.0)

    assert alone.ratio == pytest.approx(1 / 64)
    assert of_frames([load], 64, 1, 0, 1.0).ratio == 1
    assert "delay" in (of_frames([load], 64, 1, 0, 1.0).needs or "")
    assert of_frames([load], 0, 1, None, 1.0).ratio == 1, "tun's 0 gathers nothing"
    assert not of_frames([InstanceLoad(events=3, packets=3)], 64, 1, None, 1.0).showable


def test_deferral_leaves_few_interrupts_and_as_many_polls_as_its_timer_makes() -> None:
    on = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000)
    off = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0)
    load = InstanceLoad(events=20_000, packets=20_000)

    assert of_deferral([load], on, off, interrupts=True).ratio == pytest.approx(0.001)
    assert of_deferral([load], on, off, interrupts=False).ratio == pytest.approx(0.25)
    assert of_deferral([load], off, on, interrupts=False).ratio == pytest.approx(4)
    assert not of_deferral([InstanceLoad(events=5, packets=5)], on, off, interrupts=True).showable
    assert of_deferral([load], on, on, interrupts=True).ratio is None


def test_an_absence_says_something_only_where_the_effect_would_be_large() -> None:
    assert not Expectation(ratio=1 / SHOWABLE + 0.01).showable
    assert Expectation(ratio=1 / SHOWABLE - 0.01).showable
    assert Expectation(ratio=SHOWABLE + 0.01).showable
    assert not Expectation(ratio=None).showable
