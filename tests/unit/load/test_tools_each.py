"""What one load tool prints and no other: distributions, columns, losses."""

import json
import re

import pytest

from napctl.lab.load import LoadResult
from napctl.load.tools import ADAPTERS, Reading
from napctl.model.value import from_json, to_json
from tests.unit.load.recorded import recorded


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


def test_of_a_sum_as_it_was_sent_only_the_losses_are_taken() -> None:
    text = re.sub(r'"sum_(sent|received)":', r'"other_\1":', recorded("iperf3-udp"))
    assert ADAPTERS["iperf3"].read(text).metrics().keys() == {"requests_per_second", "jitter_us"}


@pytest.mark.parametrize(("seconds", "late"), [(1.02, False), (1.25, True)])
def test_iperf3_whose_receiver_counts_for_longer_than_was_sent_tells_rates_that_are_too_low(
    seconds: float, late: bool
) -> None:
    """As it does where it has no CPU: it hears of the end late."""
    text = recorded("iperf3-tcp")
    document = json.loads(text)
    received = document["end"]["sum_received"]
    received |= {"seconds": seconds, "bits_per_second": 8 * received["bytes"] / seconds}
    reading = ADAPTERS["iperf3"].read(json.dumps(document))
    assert reading.bits_per_second == received["bits_per_second"]
    sending = document["end"]["sum_sent"]["seconds"]
    words = f"its receiver counted for 1.25 s what was sent within {sending:.2f} s: its rates are too low"
    assert reading.warnings == ((words,) if late else ())


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
