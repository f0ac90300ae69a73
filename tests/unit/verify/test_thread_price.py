"""What NAPI threads cost, from windows with and without them: pure."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.verdict import ThreadPrice
from napctl.verify.thread_price import PriceSample, enough_of_price, price_of


def window(delivered: int, busy: float = 1.0, *, waited_ns: int | None = 0, runs: int | None = 0) -> PriceSample:
    counts = {"payload_bytes": 100 * delivered, "datagrams": delivered, "forwarded": 0}
    return PriceSample(seconds=1.0, delivered=counts, busy_seconds=busy, waited_ns=waited_ns, runs=runs)


def price(pairs: list[tuple[PriceSample, PriceSample]]) -> ThreadPrice:
    return price_of("eth0", (0,), pairs, 1.0)


@pytest.mark.parametrize(("share", "bad"), [(1.0, False), (0.95, False), (0.85, True), (0.1, True)])
def test_less_than_nine_tenths_of_what_was_delivered_is_too_dear(share: float, bad: bool) -> None:
    pairs = [(window(int(share * each)), window(each)) for each in (100_000, 101_000, 99_000, 100_500)]
    found = price(pairs)
    assert found.goodput is not None
    assert found.goodput.ratio == pytest.approx(share, rel=0.01)
    assert found.bad is bad
    assert enough_of_price(pairs)


def test_without_traffic_there_is_no_price() -> None:
    found = price([(window(0), window(0))] * 4)
    assert (found.goodput, found.bad) == (None, False)
    assert not enough_of_price([(window(0), window(0))] * 4)


def test_what_is_delivered_costs_cpu_time_and_a_wait() -> None:
    with_them, without = window(50_000, 0.6, waited_ns=10_000_000, runs=1000), window(50_000, 0.5, waited_ns=None)
    found = price([(with_them, without)] * 4)
    assert found.cpu is not None
    assert found.cpu.ratio == pytest.approx(1.2, rel=0.01)
    assert found.waited_us == pytest.approx(10)


@given(st.integers(0, 2**32), st.floats(0.3, 1.0))
def test_it_never_stops_sure_of_the_wrong_side(seed: int, share: float) -> None:
    drawn = random.Random(seed)
    pairs: list[tuple[PriceSample, PriceSample]] = []
    for _ in range(12):
        off = round(drawn.gauss(20_000, 200))
        pairs.append((window(round(off * share * drawn.gauss(1, 0.01))), window(off)))
        if enough_of_price(pairs):
            break
    found = price(pairs)
    assert found.bad is (share < 0.9) or abs(share - 0.9) < 0.03
