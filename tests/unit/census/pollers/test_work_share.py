"""Promises of the bound on a poller's work: never below the truth, as far as what it takes for granted holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.census.pollers.work_share import (
    AT_REST,
    DEAREST_NS,
    Busiest,
    bound,
    busier,
    busy_window,
    told_share,
)

SECONDS = st.floats(0.3, 60)
SHARE = st.floats(0.01, 1)


@given(
    seconds=SECONDS,
    threads=st.integers(1, 16),
    packets=st.integers(0, 10**8),
    busiest_packets=st.integers(1000, 10**8),
    dearer=st.floats(0.01, 1),
    of_one_thread=SHARE,
)
def test_the_bound_is_never_below_the_truth(
    seconds: float, threads: int, packets: int, busiest_packets: int, dearer: float, of_one_thread: float
) -> None:
    """In its busiest window there was so much time for a packet; now one costs `dearer` of that, whatever it cost then;
    `of_one_thread` of its packets came to the thread that is looked at."""
    cost_ns = threads * seconds * 1e9 / busiest_packets
    now_ns = min(DEAREST_NS, cost_ns * dearer)
    truth = packets * of_one_thread / seconds * now_ns / 1e9
    kept = busy_window(busiest_packets, seconds, run_seconds=threads * seconds)
    found = bound(packets, seconds, run_share=1.0, busiest=kept)
    assert found is None or found.share >= min(1.0, truth) * (1 - 1e-9)


@given(packets=st.integers(0, 10**6), seconds=SECONDS, run_share=SHARE, cost_ns=st.floats(50, 10**6))
def test_the_bound_says_less_than_what_it_ran_or_nothing(
    packets: int, seconds: float, run_share: float, cost_ns: float
) -> None:
    found = bound(packets, seconds, run_share, Busiest(packets_per_second=1.0, cpu_ns_per_packet=cost_ns))
    assert found is None or 0 <= found.share < run_share


def test_before_a_busy_window_was_seen_there_is_no_bound_but_at_rest() -> None:
    assert bound(100_000, 1.0, 1.0, None) is None
    assert bound(501, 1.0, 1.0, None) is None
    at_rest = bound(10, 1.0, 1.0, None)
    assert at_rest is not None
    assert (at_rest.share < AT_REST, at_rest.calibrated) == (True, False)
    nothing = bound(0, 1.0, 1.0, None)
    assert nothing is not None
    assert nothing.share == 0


def test_a_window_of_its_own_says_nothing_of_itself() -> None:
    """At its busiest all of its time may have been work."""
    now = busy_window(300_000, 1.0, run_seconds=1.0)
    assert bound(300_000, 1.0, 1.0, now) is None


def test_after_a_busy_window_the_bound_follows_the_packets() -> None:
    kept = busy_window(1_000_000, 1.0, run_seconds=1.0)
    found = bound(50_000, 1.0, 1.0, kept)
    assert found is not None
    assert found.calibrated
    assert found.share == pytest.approx(0.05 + 2 * 0.05)
    busier_still = bound(300_000, 1.0, 1.0, kept)
    assert busier_still is not None
    assert busier_still.share == pytest.approx(0.3 + 0.14)


def test_it_holds_for_the_poller_that_was_measured() -> None:
    """testpmd with dear packets over AF_XDP worked for 34.5 % of a CPU at a fifth of what it can."""
    found = bound(39_979, 1.0, 1.0, Busiest(packets_per_second=180_000, cpu_ns_per_packet=5_570))
    assert found is not None
    assert 0.345 <= found.share <= 0.345 + 0.15


def test_a_window_with_few_or_dear_packets_calibrates_nothing() -> None:
    assert busy_window(999, 1.0, run_seconds=0.001) is None
    assert busy_window(9_000, 1.0, run_seconds=1.0) is None
    assert busy_window(11_000, 1.0, run_seconds=1.0) is not None


def test_the_window_is_kept_that_says_most() -> None:
    one, better, hardly = (Busiest(packets_per_second=1e6, cpu_ns_per_packet=cost) for cost in (1000, 900, 995))
    assert busier(None, None) is None
    assert busier(one, None) == busier(None, one) == one
    assert busier(one, better) == busier(better, one) == better
    assert busier(one, hardly) == one


def test_the_told_share_is_that_of_the_cycles_between() -> None:
    assert told_share((100, 1000), (150, 1500)) == 0.1
    assert told_share((100, 1000), (100, 1000)) is None
    assert told_share((100, 1000), (0, 10)) is None
    assert told_share((100, 1000), (800, 1500)) is None
