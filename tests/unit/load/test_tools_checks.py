"""What contradicts itself in a load tool's output is refused, and what was measured never is."""

from fractions import Fraction
from math import ceil
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.load.tools import ADAPTERS, Reading
from napctl.load.tools.checks import Printed, check_rate
from napctl.load.tools.reading import PERCENTILES
from tests.unit.load.recorded import recorded, tool_of


@pytest.mark.parametrize(
    ("name", "old", "new", "why"),
    [
        ("wrk-latency", "Requests/sec:  11790.91", "Requests/sec:  21790.91", "21790.91 a second, but 12,905 in 1.09s"),
        ("wrk-latency", "  12905 requests", "  1 requests", "11790.91 a second, but 1 in 1.09s"),
        ("wrk-latency", "45.39ms", "40.00us", "p50 is 46 µs and p99 40 µs"),
        ("wrk-latency", "4.43ms", "0.02ms", "with a p50 of 46 µs the mean cannot be 20 µs"),
        ("wrk-latency", "46.00us", "0.00us", "p50 is 0: nothing was measured"),
        ("wrk-latency", "Running 1s", "Running 10s", "it was to run for 10s and says that it ran for 1.09s"),
        ("wrk2-latency", "in 12.01s", "in 2.01s", "it was to run for 12s and says that it ran for 2.01s"),
        ("h2load-timed", "29151.00 req/s", "29.15 req/s", "29.15 a second, but 29,151 in 1s"),
        ("h2load-timed", "2.02s", "0.42s", "it was to run for 2s and says that it ran for 0.42s"),
        ("h2load-counted", "in 266.98ms", "in 26.69ms", "18727.71 a second, but 5,000 in 26.69ms"),
        ("h2load-counted", "5000 succeeded, 0 failed", "0 succeeded, 5000 failed", "all of 5,000 requests failed"),
        ("redis-benchmark-plain", "in 1.13 seconds", "in 0.13 seconds", "17636.69 a second, but 20,000 in 0.13s"),
        ("redis-benchmark-plain", "20000 requests", "20100 requests", "does not have the 20,100 requests that it made"),
        ("memtier-plain", "Totals      16000.31", "Totals        160.31", "160.31 Ops/sec, on average 16,000 ops/sec"),
        ("mutilate-closed", "QPS = 63317.3", "QPS = 6331.3", "6331.3 a second, but 126,635 in 2.0"),
        ("iperf3-tcp", '"bits_per_second":\t1258488813', '"bits_per_second":\t2258488813', "contradict each other"),
        ("iperf3-tcp", '"duration":\t1', '"duration":\t5', "it was to run for 5s and says that it ran for 1.0"),
        ("sockperf-ping-pong", "Total 29509 obs", "Total 39509 obs", "39509 observations of 29509 answers"),
        ("sockperf-ping-pong", "Total 29509 obs", "Total 0 obs", "0 observations of 29509 answers"),
        ("sockperf-throughput", "in 1.000 sec", "in 3.000 sec", "218687 a second, but 218,792 in 3.000s"),
        ("openloop-rate", '"answered":2400', '"answered":2300', "the counts of its requests contradict each other"),
        ("openloop-rate", "[[15.295,1]", "[[65.295,1]", "its distribution of latencies falls"),
    ],
)  # fmt: skip
def test_figures_that_contradict_each_other_are_refused(name: str, old: str, new: str, why: str) -> None:
    text = recorded(name)
    assert old in text
    with pytest.raises(ValueError, match=why):
        ADAPTERS[tool_of(name)].read(text.replace(old, new))


@given(st.fractions(0, 10**9), st.integers(0, 4))
def test_what_is_printed_may_stand_for_whatever_was_rounded_to_it(value: Fraction, digits: int) -> None:
    for text in (f"{float(value):.{digits}f}", f"{float(value):.{digits}e}"):
        printed = Printed.of(text)
        assert printed.low - printed.high / 1e9 <= value <= printed.high * (1 + 1e-9)
        in_ms = Printed.time(f"{text}ms")
        assert (in_ms.low, in_ms.high) == pytest.approx((printed.low / 1000, printed.high / 1000), rel=1e-12)


@given(st.integers(1, 10**7), st.floats(0.001, 1000), st.integers(0, 3), st.sampled_from((1.0, 0.9, 1.1, 1e-3, 1e5)))
def test_a_rate_is_refused_if_it_is_not_the_count_by_the_time(
    count: int, seconds: float, digits: int, off: float
) -> None:
    rate, ran = Printed.of(f"{off * count / seconds:.2f}"), Printed.of(f"{seconds:.{digits}f}", "s")
    sharp = ran.high - ran.low < ran.low / 100 and rate.high - rate.low < rate.low / 100
    try:
        check_rate(rate, count, ran)
    except ValueError:
        assert off != 1
    else:
        assert off == 1 or not sharp


TIMES = st.lists(st.floats(0.01, 1e8), min_size=1, max_size=300)


def of_times(times: list[float]) -> Reading:
    ranked = sorted(times)
    at = {name: ranked[ceil(share * len(ranked)) - 1] for name, share in PERCENTILES.items()}
    return Reading(latency_avg_us=fmean(times), **at)  # type: ignore[arg-type]


@given(TIMES)
def test_times_that_were_measured_never_contradict_each_other(times: list[float]) -> None:
    of_times(times).check()


@given(TIMES, st.floats(2, 1e6))
def test_a_percentile_below_a_lower_one_is_refused(times: list[float], factor: float) -> None:
    measured = of_times(times)
    assert measured.latency_p99_us is not None
    wrong = {name: getattr(measured, name) for name in PERCENTILES} | {
        "latency_p95_us": measured.latency_p99_us * factor
    }
    with pytest.raises(ValueError, match="cannot be less"):
        Reading(**wrong).check()


@given(TIMES)
def test_a_percentile_beyond_which_no_request_is_is_left_out_and_told(times: list[float]) -> None:
    kept = of_times(times).standing_on(len(times))
    for name, share in PERCENTILES.items():
        assert (getattr(kept, name) is not None) == (len(times) - ceil(share * len(times)) >= 1)
    assert bool(kept.warnings) == (kept.metrics() != of_times(times).metrics())
