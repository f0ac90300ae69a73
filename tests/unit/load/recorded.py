"""What load tools print, as recorded from the real ones in loads/, and what is to be read from it."""

from pathlib import Path
from typing import Any

from napctl.load.tools import ADAPTERS, Reading

LOADS = Path(__file__).parent / "outputs"
HALVES = "latencies are halves of the round trip: sockperf tells the whole with --full-rtt"
SLOWEST = "p99.9 of 548 requests is the slowest one: left out"
FEW = "the server had to answer only some messages, and requests/s counts these: give --reply-every=1"


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
