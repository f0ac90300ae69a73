"""What load tools print, as recorded from the real ones in loads/, and what napctl reads from it."""

import re
from fractions import Fraction
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.figures import invented

from napctl.lab.load import LoadResult
from napctl.measure.adapters import ADAPTERS, Reading, adapter_for, adapter_named
from napctl.measure.adapters.checks import Printed, check_rate
from napctl.measure.adapters.figures import documents, exact, histogram, microseconds, plain
from napctl.measure.adapters.reading import PERCENTILES
from napctl.model.errors import BadInput
from napctl.model.metrics import BY_NAME
from napctl.model.value import from_json, to_json

LOADS = Path(__file__).parent / "loads"
HALVES = "latencies are halves of the round trip: sockperf tells the whole with --full-rtt"
SLOWEST = "p99.9 of 548 requests is the slowest one: left out"
FEW = "the server had to answer only some messages, and requests/s counts these: give --reply-every=1"
DERIVED = ("sockperf", "iperf3")
"""Their requests/s are a quotient of two figures."""


def recorded(name: str) -> str:
    return (LOADS / f"{name}.txt").read_text()


def tool_of(name: str) -> str:
    (tool,) = (each for each in ADAPTERS if name.startswith(each.removesuffix("_benchmark") + "-"))
    return tool


def us(avg: float, p50: float, p95: float | None, p99: float, p999: float | None) -> dict[str, Any]:
    names = ("avg", "p50", "p95", "p99", "p999")
    return {f"latency_{name}_us": value for name, value in zip(names, (avg, p50, p95, p99, p999), strict=True)}


# Copied from the recorded outputs by hand.
TOLD: dict[str, Reading] = {
    "sockperf-ping-pong": Reading(
        requests_per_second=29509 / 0.55, errors=0, warnings=(HALVES,), **us(9.318, 5.953, None, 36.158, 66.479)
    ),
    "sockperf-full-rtt": Reading(
        requests_per_second=38124 / 0.551, errors=0, **us(14.417, 11.847, None, 50.995, 303.521)
    ),
    "sockperf-under-load": Reading(
        requests_per_second=2751 / 0.55, errors=0, warnings=(HALVES,), **us(42.579, 18.98, None, 866.504, 1877.746)
    ),
    "sockperf-under-load-udp": Reading(
        requests_per_second=548 / 0.547,
        errors=0,
        warnings=(HALVES, FEW, SLOWEST),
        **us(26.826, 17.844, None, 519.04, None),
    ),
    "sockperf-under-load-max": Reading(
        requests_per_second=4809 / 0.555,
        errors=5559,
        warnings=(HALVES, FEW),
        **us(537.044, 18.247, None, 3095.462, 3511.816),
    ),
    "sockperf-throughput": Reading(
        requests_per_second=218687, warnings=("sockperf throughput counts what it sent, not what arrived",)
    ),
    "wrk-latency": Reading(requests_per_second=11790.91, errors=0, **us(4430, 46, None, 45390, None)),
    "wrk-plain": Reading(requests_per_second=37668.33, latency_avg_us=1790, errors=0),
    "wrk-errors": Reading(
        requests_per_second=18571.34,
        errors=18935,
        warnings=("18,935 of 18,935 requests failed",),
        **us(3020, 66, None, 48600, None),
    ),
    "wrk2-latency": Reading(requests_per_second=1982.63, errors=0, **us(3970, 2101, 12367, 31660, 40030)),
    "wrk2-saturated": Reading(
        requests_per_second=15231.35, errors=0, **us(879_780, 867_839, 1_589_247, 1_820_000, 1_920_000)
    ),
    "wrk2-plain": Reading(requests_per_second=1935.24, latency_avg_us=6380, errors=0),
    "h2load-timed": Reading(requests_per_second=29151, latency_avg_us=137, errors=0),
    "h2load-counted": Reading(requests_per_second=18727.71, latency_avg_us=829, errors=0),
    "redis-benchmark-csv-get": Reading(requests_per_second=23282.89, **us(262, 95, 271, 3543, None)),
    "redis-benchmark-csv-quotes": Reading(requests_per_second=18220.10, **us(201, 191, 260, 311, None)),
    "redis-benchmark-plain": Reading(requests_per_second=17636.69, **us(311, 79, 223, 6183, None)),
    "redis-benchmark-quiet": Reading(requests_per_second=57471.27, latency_p50_us=79),
    "memtier-plain": Reading(requests_per_second=16000.31, **us(250.17, 95, None, 2015, 31999)),
    "memtier-percentiles": Reading(requests_per_second=17686.28, **us(225.98, 95, 703, 1359, 4255)),
    "mutilate-closed": Reading(
        requests_per_second=63317.3, latency_avg_us=62.9, latency_p95_us=108.7, latency_p99_us=140
    ),
    "mutilate-updates": Reading(
        requests_per_second=12030.8,
        latency_avg_us=318.6,
        latency_p95_us=109.5,
        latency_p99_us=1587.8,
        warnings=("mutilate tells no latency of all requests: these are the reads'",),
    ),
    "mutilate-readme": Reading(
        requests_per_second=318710.8, latency_avg_us=598.8, latency_p95_us=1075.8, latency_p99_us=1170.6
    ),
    "iperf3-tcp": Reading(bits_per_second=1258488813.9459915),
    "iperf3-tcp-reverse": Reading(bits_per_second=443887299.24076337),
    "iperf3-udp": Reading(
        requests_per_second=77 / 1.000325,
        bits_per_second=20178529.97775723,
        jitter_us=24.706996953282368,
        errors=0,
    ),
    "iperf3-udp-reverse": Reading(
        requests_per_second=77 / 1.000081,
        bits_per_second=20183453.140295636,
        jitter_us=39.4814090171346,
        errors=0,
    ),
}
REFUSED = {
    "sockperf-refused": r"sockperf: no '\[Valid Duration\]'",
    "sockperf-silent": r"sockperf: no '\[Valid Duration\]'",
    "wrk-refused": "wrk: no 'Requests/sec'",
    "h2load-refused": "h2load: no request was answered",
    "redis-benchmark-refused": "redis-benchmark: no 'requests per second'",
    "redis-benchmark-csv": "redis-benchmark: 2 tests .* one is to be measured: -t get",
    "memtier-refused": "memtier_benchmark: no request was answered",
    "mutilate-refused": "mutilate: no 'Total QPS'",
    "iperf3-refused": "iperf3: unable to connect to server: Connection refused",
    "iperf3-plain": "iperf3: no JSON document in its output; give -J",
    "iperf3-twice": "iperf3: 2 JSON documents in its output; one run is to be measured",
    "iperf3-json-stream": "iperf3: a stream of JSON events .*: give -J without --json-stream",
    "iperf3-trailing-error": "iperf3: error - unable to send control message: Broken pipe",
    "iperf3-bidir-same-keys": "iperf3: --bidir measures two directions at once; measure one",
    "memtier-cluster-eval": "its table has no operation of the 4,000 that it made: .* without --cluster-mode",
    "sockperf-one-message": "sockperf: 1 in 0.000s are no rate: give it more time",
    "wrk-zero-rate": r"wrk: it was to run for 5s and says that it ran for 307445734560\.21m: .*no request times out",
    "wrk2-too-short": "wrk2: it was to run for 5s and says that it ran for 1.60ms: .*fewer threads",
}
"""None of the tools but wrk ends with an error when the server refuses; so what is missing must be one. And what
contradicts itself is none of its two figures."""


@pytest.mark.parametrize("name", TOLD)
def test_every_figure_is_the_one_that_the_tool_printed_and_what_it_did_not_print_is_none(name: str) -> None:
    reading, told = ADAPTERS[tool_of(name)].read(recorded(name)), TOLD[name]
    assert reading.metrics() == pytest.approx(told.metrics(), rel=1e-12)
    assert (reading.errors, reading.saturated, reading.warnings) == (told.errors, None, told.warnings)


@pytest.mark.parametrize("name", REFUSED)
def test_a_load_that_failed_is_an_error_in_one_line_and_never_a_figure(name: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[name]) as caught:
        ADAPTERS[tool_of(name)].read(recorded(name))
    assert "\n" not in str(caught.value)


def test_every_recorded_output_is_in_a_test() -> None:
    assert {path.stem for path in LOADS.glob("*.txt")} == {*TOLD, *REFUSED, "openloop-rate"}


def test_every_figure_of_a_reading_is_a_metric() -> None:
    assert set(Reading(requests_per_second=1, bits_per_second=1, jitter_us=1).metrics()) <= set(BY_NAME)
    assert set(TOLD["wrk2-latency"].metrics()) <= set(BY_NAME)


def test_the_distribution_of_wrk2_has_all_requests_and_its_percentiles() -> None:
    reading = ADAPTERS["wrk2"].read(recorded("wrk2-latency"))
    counted = re.search(r"Total count\s+=\s+(\d+)", recorded("wrk2-latency"))
    assert counted is not None
    assert sum(count for _, count in reading.latency) == int(counted[1])
    median = next(upper for upper, seen in running(reading) if seen >= int(counted[1]) / 2)
    assert median == reading.latency_p50_us


def test_the_distribution_of_redis_benchmark_has_all_requests() -> None:
    reading = ADAPTERS["redis-benchmark"].read(recorded("redis-benchmark-plain"))
    assert list(running(reading))[-1] == (42783, 20000)


def running(reading: Reading) -> list[tuple[float, int]]:
    seen, found = 0, []
    for upper, count in reading.latency:
        seen += count
        found.append((upper, seen))
    return found


def test_wrk2_that_is_installed_as_wrk_is_read_as_what_it_is() -> None:
    assert ADAPTERS["wrk"].read(recorded("wrk2-latency")) == ADAPTERS["wrk2"].read(recorded("wrk2-latency"))


def test_of_two_distributions_of_wrk2_the_one_that_counts_waiting_is_taken() -> None:
    text = recorded("wrk2-latency")
    start, end = text.index("  Latency Distribution"), text.index("  3907 requests" if "  3907 req" in text else "----")
    uncorrected = re.sub(r"\d+\.\d+ms", "1.00ms", text[start:end]).replace("Recorded", "Uncorrected")
    both = text.replace("----------\n", f"----------\n\n{uncorrected}----------\n", 1)
    assert both != text
    assert ADAPTERS["wrk2"].read(both) == ADAPTERS["wrk2"].read(text)


def test_our_own_generator_tells_all_of_it() -> None:
    text = recorded("openloop-rate")
    result = from_json(text.strip(), LoadResult)
    reading = ADAPTERS["openloop"].read(f"{text}measuring\n")
    assert reading.metrics() == {
        "requests_per_second": result.achieved_per_second,
        "latency_p50_us": result.p50_us,
        "latency_p95_us": result.percentile_us(0.95),
        "latency_p99_us": result.p99_us,
        "latency_p999_us": result.p999_us,
    }
    assert (reading.errors, reading.saturated, reading.latency) == (0, False, result.histogram)


@pytest.mark.parametrize(("busy_share", "saturated"), [(0.2, False), (0.95, True)])
def test_a_generator_that_is_the_limit_itself_says_so(busy_share: float, saturated: bool) -> None:
    result = from_json(recorded("openloop-rate").strip(), LoadResult)
    changed = {name: getattr(result, name) for name in LoadResult.__struct_fields__} | {"busy_share": busy_share}
    text = to_json(LoadResult(**changed)).decode() + "\n"
    assert ADAPTERS["openloop"].read(text).saturated is saturated


def test_errors_are_all_that_failed_whatever_the_reason() -> None:
    line = "  Socket errors: connect 1, read 2, write 3, timeout 4\nRequests/sec"
    text = recorded("wrk-errors").replace("Requests/sec", line)
    assert ADAPTERS["wrk"].read(text).errors == 18935 + 10


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


def test_of_a_sum_as_it_was_sent_only_the_losses_are_taken() -> None:
    text = re.sub(r'"sum_(sent|received)":', r'"other_\1":', recorded("iperf3-udp"))
    assert ADAPTERS["iperf3"].read(text).metrics().keys() == {"requests_per_second", "jitter_us"}


@given(st.fractions(0, 10**9), st.integers(0, 4))
def test_what_is_printed_may_stand_for_whatever_was_rounded_to_it(value: Fraction, digits: int) -> None:
    for text in (f"{float(value):.{digits}f}", f"{float(value):.{digits}e}"):
        printed = Printed.of(text)
        assert printed.low - printed.high / 10**9 <= value <= printed.high * (1 + Fraction(1, 10**9))
        assert Printed.time(f"{text}ms") == Printed(f"{text}ms", printed.low / 1000, printed.high / 1000)


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


def test_two_runs_in_one_output_are_refused() -> None:
    for name in TOLD:
        with pytest.raises(ValueError, match=tool_of(name)):
            ADAPTERS[tool_of(name)].read(recorded(name) * 2)


def test_lost_datagrams_are_no_requests_but_errors() -> None:
    text = recorded("iperf3-udp").replace('"lost_packets":\t0', '"lost_packets":\t7')
    reading = ADAPTERS["iperf3"].read(text)
    assert reading.requests_per_second == pytest.approx(70 / 1.000325)
    assert (reading.errors, reading.warnings) == (7, ("7 of 77 datagrams were lost",))


def test_columns_that_other_versions_print_are_found_by_name() -> None:
    h2load = recorded("h2load-timed").replace(
        "min         max         mean  ", "min         max         median      p95         p99         mean  "
    )
    h2load = h2load.replace("63.89ms       137us", "63.89ms       90us     1.5ms      9ms      137us")
    reading = ADAPTERS["h2load"].read(h2load)
    assert (reading.latency_p50_us, reading.latency_p99_us, reading.latency_avg_us) == (90, 9000, 137)
    old = "Type        Ops/sec     Hits/sec   Misses/sec      Latency       KB/sec \nTotals  100.5 0.0 0.0 0.25 9.9\n"
    assert ADAPTERS["memtier_benchmark"].read(old).metrics() == {"requests_per_second": 100.5, "latency_avg_us": 250}
    assert ADAPTERS["redis-benchmark"].read('"GET","71.5"\n').metrics() == {"requests_per_second": 71.5}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("wrk -t1 -c4 --latency http://server/", "wrk"),
        ("wrk -t1 -R{rate} http://server/", "wrk2"),
        ("/opt/wrk2/wrk -t1 --rate {rate} http://server/", "wrk2"),
        ("taskset -c 1 sockperf ul -i 10.0.0.1 --mps {rate}", "sockperf"),
        ("cd /tmp;h2load -D{seconds} http://server/|cat", "h2load"),
        ("ssh client 'sudo true' && valkey-benchmark -t get --csv", "redis-benchmark"),
        ("/var/cache/napctl/openloop-0123456789abcdef --rate={rate}", "openloop"),
        ("memtier_benchmark -s server", "memtier_benchmark"),
        ("./load.sh {rate}", None),
        ("echo 'unfinished", None),
        ("", None),
    ],
)
def test_the_adapter_is_found_by_the_program(command: str, name: str | None) -> None:
    found = adapter_for(command)
    assert (found.name if found else None) == name


class TestCustom:
    TEXT = 'warming up\nrps: 12.5k\np99=3.25 ms p50=80\nfailed 3\n{"end": {"sum": {"x": 7.5}, "p99.0": [1, 250]}}\n'
    TEXT += '{"twice": {"deeper": 1}, "twice": {"deeper": 1}}\nnothing: 0\n'

    def read(self, *specs: str) -> Reading:
        return adapter_named("\n".join(specs)).read(self.TEXT)

    def test_regular_expressions_and_paths_find_figures_with_their_units(self) -> None:
        reading = self.read(
            r"regex:requests_per_second=^rps: (\S+)$",
            r"regex:latency_p95_us=p99=(?P<value>[\d.]+) (?P<unit>\w+)",
            r"regex:latency_p50_us=p50=(\d+)",
            r"regex:latency_p99_us[ms]=p50=(\d+)",
            r"regex:errors=failed (\d+)",
            "json:bits_per_second[M]=.end.sum.x",
            'json:latency_p999_us[ms]=.end["p99.0"][-1]',
        )
        assert reading == Reading(
            requests_per_second=12_500,
            latency_p95_us=3250,
            latency_p50_us=80,
            latency_p99_us=80_000,
            latency_p999_us=250_000,
            bits_per_second=7_500_000,
            errors=3,
        )

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ("regex:latency_p99_us=p42=(.*)", "found nothing"),
            (r"regex:latency_p99_us=p\d\d=([\d.]+)", "found 2 different values"),
            ("regex:latency_p99_us=(warming)", "no time with its unit"),
            (r"regex:latency_p99_us[us]=p99=([\d.]+ ms)", "no time with its unit"),
            ("json:latency_p99_us=.end.sum.y", "found nothing"),
            ("json:latency_p99_us=.end.sum", "is no number"),
            ('json:latency_p99_us=.end["p99.0"][2]', "found nothing"),
            ("json:errors=.end.sum.x", "is no count"),
            ("json:requests_per_second=.twice", "'twice' stands more than once in one object"),
            ("json:requests_per_second=.twice.deeper", "'twice' stands more than once in one object"),
            ("regex:requests_per_second=(0)$", "no request was answered"),
            ("regex:latency_p50_us=(0)$", "p50 is 0: nothing was measured, or in too coarse a unit"),
        ],
    )
    def test_what_is_not_found_or_not_clear_is_an_error(self, spec: str, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            self.read(spec)

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ("regex:throughput=(.*)", "'throughput' is no figure of a load"),
            ("regex:requests_per_second=(", "is no regular expression"),
            ("regex:requests_per_second[ms]=(.*)", "has no unit 'ms'"),
            ("regex:latency_p99_us=(?P<unit>ms)", "none for the value"),
            ("json:requests_per_second=end.sum", "is no JSON path"),
            ("json:requests_per_second", "is neither"),
            ("jmeter", "is no load tool that napctl can read"),
            ("json:errors=.a\njson:errors=.b", "more than once"),
        ],
    )
    def test_a_bad_request_is_refused_before_anything_is_measured(self, spec: str, why: str) -> None:
        with pytest.raises(BadInput, match=why):
            adapter_named(spec)

    def test_adapters_can_be_named(self) -> None:
        assert [adapter_named(name).name for name in ADAPTERS] == list(ADAPTERS)


UNITS = {"ns": -3, "us": 0, "µs": 0, "usec": 0, "ms": 3, "msec": 3, "s": 6, "sec": 6}
DECIMALS = st.decimals(0, 10**12, allow_nan=False, allow_infinity=False, places=3).map(lambda value: f"{value:f}")


@given(DECIMALS, st.sampled_from(sorted(UNITS)), st.sampled_from(("", " ")))
def test_a_time_is_the_float_nearest_to_what_is_written(number: str, unit: str, space: str) -> None:
    wanted = float(Fraction(number) * Fraction(10) ** UNITS[unit])
    assert microseconds(f"{number}{space}{unit}") == microseconds(number, unit) == wanted


@given(DECIMALS, st.sampled_from((("", 0), ("k", 3), ("K", 3), ("M", 6), ("G", 9))))
def test_a_rate_is_the_float_nearest_to_what_is_written(number: str, unit: tuple[str, int]) -> None:
    assert plain(f"{number}{unit[0]}") == float(Fraction(number) * 10 ** unit[1])


@pytest.mark.parametrize("text", ["", "-", "nan", "inf", "-nan", "-1", "1,5", "0x10", "1e9999", "1.", ".5", "٣", "1 2"])
def test_what_is_no_number_is_refused(text: str) -> None:
    for read in (exact, plain, lambda text: microseconds(text, "us")):
        with pytest.raises(ValueError, match="is no "):
            read(text)


@pytest.mark.parametrize("text", ["5", "5 parsecs", "5MS", "5 k", "ms", "5msms"])
def test_a_time_without_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time with its unit"):
        microseconds(text)


def test_a_number_that_no_float_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        plain("1e999")


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 1000)), max_size=20))
def test_a_cumulative_distribution_becomes_counts(steps: list[tuple[int, int]]) -> None:
    total, cumulative = 0, []
    for upper, (_, count) in enumerate(steps, 1):
        total += count
        cumulative.append((float(upper), total))
    made = histogram(cumulative)
    assert sum(count for _, count in made) == total
    assert all(count > 0 for _, count in made)


def test_json_among_other_lines_is_found_whole_and_exact() -> None:
    text = 'note: {not json}\n{"a": 0.1,\n "b": {\n  "c": [1]\n }}\ntrailing\n[2]\n{"broken": \n{"n": NaN}\n'
    assert documents(text) == [{"a": Fraction(1, 10), "b": {"c": [1]}}, [2]]


RECORDED = [recorded(name) for name in TOLD]
JUNK = st.text('0123456789.:%=<>-()[]{}",usmkM \t\r\n\x1b', max_size=12)


@st.composite
def mangled(draw: st.DrawFn) -> tuple[str, str]:
    """A tool, and a recorded output of it with pieces cut out, put in, moved and exchanged."""
    name = draw(st.sampled_from(sorted(TOLD)))
    text = recorded(name)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from((0, 1, 2, 10, 100)))
        piece = draw(JUNK | st.just(text[at : at + 60]) | st.sampled_from(RECORDED).map(lambda other: other[-300:]))
        text = text[:at] + piece + text[at + length :]
    return tool_of(name), draw(st.sampled_from((text, text[: draw(st.integers(0, len(text)))])))


@settings(max_examples=600)
@given(mangled())
def test_a_mangled_output_gives_an_error_or_figures_that_stand_in_it(case: tuple[str, str]) -> None:
    tool, text = case
    try:
        reading = ADAPTERS[tool].read(text)
    except ValueError:
        return
    assert reading.metrics(), "a reading without figures"
    assert not invented(reading, text, derived=("requests_per_second",) if tool in DERIVED else ())


@settings(max_examples=300)
@given(st.sampled_from(sorted(ADAPTERS)), st.text(max_size=300) | st.lists(JUNK, max_size=30).map("\n".join))
def test_garbage_gives_an_error(tool: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"^{tool}: .+$"):
        ADAPTERS[tool].read(text)


@given(st.sampled_from(sorted(TOLD)), st.data())
def test_an_output_that_was_cut_off_gives_an_error_or_what_the_whole_one_gives(name: str, data: st.DataObject) -> None:
    text = recorded(name)
    whole = ADAPTERS[tool_of(name)].read(text).metrics()
    cut = text[: data.draw(st.integers(0, len(text)))]
    try:
        told = ADAPTERS[tool_of(name)].read(cut).metrics()
    except ValueError:
        return
    assert told.items() <= whole.items()
