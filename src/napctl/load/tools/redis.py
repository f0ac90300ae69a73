"""redis-benchmark (and valkey-benchmark): plain, --csv and -q (src/redis-benchmark.c: showReport).

It runs several tests by default, of which each has its own figures: one is to be chosen, by -t.
"""

import re
from typing import Any

from napctl.load.tools.checks import Printed, check_rate
from napctl.load.tools.numbers import NUMBER, Output, histogram, microseconds, number
from napctl.load.tools.reading import Adapter, Reading

__all__ = ["ADAPTER"]


COLUMNS = {
    "avg_latency_ms": "latency_avg_us",
    "p50_latency_ms": "latency_p50_us",
    "p95_latency_ms": "latency_p95_us",
    "p99_latency_ms": "latency_p99_us",
}
"""Of --csv."""
SUMMARY = {"avg": "latency_avg_us", "p50": "latency_p50_us", "p95": "latency_p95_us", "p99": "latency_p99_us"}
"""Of the plain form."""


def read(text: str) -> Reading:
    """What redis-benchmark told. Raises ValueError."""
    output = Output(text)
    rows = [line for line in output.lines if line.startswith('"')]
    return _csv(rows) if rows else _plain(output)


def _csv(rows: list[str]) -> Reading:
    """It does not escape the quotes and commas in the name of a test, so columns are counted from the end."""
    head = rows.pop(0) if rows[0].startswith('"test",') else '"test","rps"'  # without a head before redis 6.2
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} tests in its output; one is to be measured: -t get")
    names = head.strip('"').split('","')
    values = rows[0].rstrip('"').rsplit('","', len(names) - 1)
    if len(values) != len(names):
        raise ValueError(f"{len(values)} figures in {len(names)} columns")
    cells = dict(zip(names, values, strict=True))
    if "rps" not in cells:
        raise ValueError("no column 'rps' in its output")
    return _reading(number(cells["rps"]), {field: cells[name] for name, field in COLUMNS.items() if name in cells}, ())


def _plain(output: Output) -> Reading:
    rate = output.one(
        rf"(?:throughput summary: |\S.*: )?({NUMBER}) requests per second(?:, p50=({NUMBER}) msec)?",
        "requests per second",
    )
    times = {"latency_p50_us": rate[2]} if rate[2] else {}
    if "latency summary (msec):" in output.lines:
        after = output.lines.index("latency summary (msec):")
        names, values = (line.split() for line in [*output.lines[after + 1 :], "", ""][:2])
        if len(names) != len(values):
            raise ValueError(f"{len(values)} figures in {len(names)} columns of 'latency summary'")
        cells = dict(zip(names, values, strict=True))
        times |= {field: cells[name] for name, field in SUMMARY.items() if name in cells}
    latency = _distribution(output)
    reading = _reading(number(rate[1]), times, latency)
    made = output.maybe(rf"(\d+) requests completed in ({NUMBER}) seconds", "requests completed")
    if not made:
        return reading
    requests = int(made[1])
    check_rate(Printed.of(rate[1]), requests, Printed.of(made[2], "s"))
    if latency and sum(count for _, count in latency) != requests:
        raise ValueError(f"its distribution of latencies does not have the {requests:,} requests that it made")
    return reading.standing_on(requests)


def _distribution(output: Output) -> tuple[tuple[float, int], ...]:
    """The first of its two lists, which is the finer one."""
    cumulative = []
    head = "Latency by percentile distribution:"
    for line in output.lines[output.lines.index(head) + 1 :] if head in output.lines else ():
        row = re.fullmatch(rf"{NUMBER}% <= ({NUMBER}) milliseconds \(cumulative count (\d+)\)", line, re.ASCII)
        if row is None:
            break
        cumulative.append((microseconds(row[1], "ms"), int(row[2])))
    return histogram(cumulative)


def _reading(per_second: float, times_ms: dict[str, str], latency: tuple[tuple[float, int], ...]) -> Reading:
    if not per_second:
        raise ValueError("no request was answered")
    told: dict[str, Any] = {field: microseconds(text, "ms") for field, text in times_ms.items()}
    return Reading(requests_per_second=per_second, latency=latency, **told)


ADAPTER = Adapter("redis-benchmark", ("redis-benchmark", "valkey-benchmark"), read, loop="closed")
