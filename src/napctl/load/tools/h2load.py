"""h2load (nghttp2): HTTP/1.1, 2 and 3, as doc/h2load.h2r explains its output. It tells a mean, and no percentiles.

It ends with 0 also if no request was made. Columns are found by their names, so more of them would be read.
"""

import re

from napctl.load.tools.checks import Printed, check_length, check_rate
from napctl.load.tools.numbers import NUMBER, TIME, Output, microseconds, number, plain
from napctl.load.tools.reading import Adapter, Reading, failures

__all__ = ["ADAPTER"]


def read(text: str) -> Reading:
    """What h2load told. Raises ValueError."""
    output = Output(text)
    rate = output.one(rf"finished in ({TIME}), ({NUMBER}) req/s, .*", "finished in")
    counts = output.one(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed,.*", "requests")
    done, succeeded, failed = (int(count) for count in counts.groups())
    if not succeeded:
        raise ValueError("no request was answered" if not done else f"all of {done:,} requests failed")
    check_rate(Printed.of(rate[2]), succeeded, _seconds(output, Printed.time(rate[1])))
    times = _times(output)
    reading = Reading(
        requests_per_second=plain(rate[2]),
        latency_avg_us=times.get("mean"),
        latency_p50_us=times.get("median"),
        latency_p95_us=times.get("p95"),
        latency_p99_us=times.get("p99"),
        errors=failed,
        warnings=failures(failed, done),
    )
    return reading.standing_on(done)


def _seconds(output: Output, ran: Printed) -> Printed:
    """What it divides by: with --duration the seconds that were asked for, without its warm-up."""
    timed = output.all(r".*with (\d+(?:\.\d+)?)s of warm-up time and (\d+(?:\.\d+)?)s of main duration.*")
    if not timed:
        return ran
    warmup, main = (number(seconds) for seconds in timed[0].groups())
    check_length(ran, Printed.exactly(warmup + main))
    return Printed.exactly(main)


def _times(output: Output) -> dict[str, float]:
    """Times for a request in µs, by column; none if nothing was measured."""
    head = output.maybe(r"min\s+max\s.*sd", "min max")
    row = output.maybe(rf"(?:time for )?request\s*:\s*((?:{TIME}\s+)+){NUMBER}%", "time for request")
    if not head or not row:
        return {}
    names = re.split(r"\s{2,}", head[0])
    times = [microseconds(time) for time in row[1].split()]
    if len(names) != len(times) + 1:
        raise ValueError(f"{len(times) + 1} times for a request in {len(names)} columns")
    return dict(zip(names, times, strict=False)) if any(times) else {}


ADAPTER = Adapter("h2load", ("h2load",), read, loop="closed")
