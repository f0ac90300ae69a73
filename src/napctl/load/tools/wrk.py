"""wrk, and wrk2, whose output is wrk's with more percentiles and, with --latency, a whole distribution.

wrk2 is installed as `wrk` as often as not, so one function reads either. Errors are printed only if there were some
(src/wrk.c: main).
"""

import re

from napctl.load.tools.checks import Printed, check_length, check_rate
from napctl.load.tools.numbers import NUMBER, TIME, Output, histogram, microseconds, number, plain
from napctl.load.tools.reading import Adapter, Reading, failures

__all__ = ["WRK", "WRK2", "has_a_rate"]


def read(text: str) -> Reading:
    """What wrk or wrk2 told. Raises ValueError."""
    output = Output(text)
    rate = output.one(rf"Requests/sec:\s+({NUMBER})", "Requests/sec")
    made = output.one(rf"(\d+) requests in ({TIME}),.*", "requests in")
    asked = output.one(rf"Running ({TIME}) test @.*", "Running")
    requests, ran = int(made[1]), Printed.time(made[2])
    if not requests:
        raise ValueError("no request was answered")
    check_length(ran, Printed.time(asked[1]))
    check_rate(Printed.of(rate[1]), requests, ran)
    average = output.maybe(rf"Latency\s+({TIME})\s+{TIME}\s+{TIME}\s+{NUMBER}%", "Latency")
    at, distribution = _latencies(output)
    errors = sum(
        sum(map(int, found.groups()))
        for pattern, what in (
            (r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", "Socket errors"),
            (r"Non-2xx or 3xx responses: (\d+)", "Non-2xx or 3xx responses"),
        )
        if (found := output.maybe(pattern, what))
    )
    reading = Reading(
        requests_per_second=plain(rate[1]),
        latency_avg_us=microseconds(average[1]) if average else None,
        latency_p50_us=at.get(50),
        latency_p95_us=at.get(95),
        latency_p99_us=at.get(99),
        latency_p999_us=at.get(99.9),
        errors=errors,
        latency=distribution,
        warnings=failures(errors, requests),
    )
    return reading.standing_on(sum(count for _, count in distribution) or requests)


def _latencies(output: Output) -> tuple[dict[float, float], tuple[tuple[float, int], ...]]:
    """Percentiles and distribution; wrk2's without what its -U adds, from the moment of sending."""
    recorded = Output("")
    recorded.lines = output.lines
    for place, line in enumerate(output.lines):
        if "Uncorrected Latency" in line:
            recorded.lines = output.lines[:place]
            break
    at = recorded.unambiguous(
        (number(row[1]), microseconds(row[2])) for row in recorded.all(rf"({NUMBER})%\s+({TIME})")
    )
    rows = recorded.all(rf"({NUMBER})\s+([01]\.\d+)\s+(\d+)\s+(?:{NUMBER}|inf)")
    fine = [(round(number(row[2], 100), 9), microseconds(row[1], "ms"), int(row[3])) for row in rows]
    # The same figures with more digits, where a step of the distribution is at that percentile.
    at |= {percent: upper_us for percent, upper_us, _ in fine if percent in (50, 95, 99)}
    return at, histogram((upper_us, count) for _, upper_us, count in fine)


def has_a_rate(words: list[str]) -> bool:
    """Whether the options have a rate, which wrk2 demands and wrk does not know."""
    return any(re.fullmatch(r"-R.*|--rate(=.*)?", word) for word in words)


WRK = Adapter("wrk", ("wrk",), read, loop="closed")
WRK2 = Adapter("wrk2", ("wrk2",), read, loop="open")
