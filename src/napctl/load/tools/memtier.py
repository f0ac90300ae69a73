"""memtier_benchmark: the line `Totals` of its table (run_stats.cpp: print). Columns are found by their names.

Its JSON is not read: there the average of all requests is 0.000. A total of no requests has percentiles of 0.007 ms.
"""

import re
from typing import Any

from napctl.load.tools.numbers import NUMBER, Output, microseconds, number
from napctl.load.tools.reading import Adapter, Reading

__all__ = ["ADAPTER"]


COLUMNS = {
    "Latency": "latency_avg_us",  # before 1.3
    "Avg. Latency": "latency_avg_us",
    "p50 Latency": "latency_p50_us",
    "p95 Latency": "latency_p95_us",
    "p99 Latency": "latency_p99_us",
    "p99.9 Latency": "latency_p999_us",
}

APART = 1.5
"""By how much its table and its progress, which divide by times of their own, may miss each other in a short run."""


def read(text: str) -> Reading:
    """What memtier_benchmark told. Raises ValueError."""
    output = Output(text)
    head = output.one(r"Type\s{2,}Ops/sec\s{2,}.*", "Ops/sec")
    totals = output.one(r"Totals\s+.*", "Totals")
    names, values = re.split(r"\s{2,}", head[0]), totals[0].split()
    if len(names) != len(values):
        raise ValueError(f"{len(values)} figures in {len(names)} columns of 'Totals'")
    cells = dict(zip(names, values, strict=True))
    per_second = number(cells["Ops/sec"])
    requests = _agreed(output, per_second)
    told: dict[str, Any] = {
        field: microseconds(cells[name], "ms")
        for name, field in COLUMNS.items()
        if re.fullmatch(NUMBER, cells.get(name, ""), re.ASCII)  # else "---" or "-nan"
    }
    broken = output.all(r"\[RUN .* (\d+) conn errors:.*")  # its progress, at the end with all of them
    errors = int(broken[-1][1]) if broken else None
    warnings = (f"{errors:,} connections failed",) if errors else ()
    reading = Reading(requests_per_second=per_second, errors=errors, warnings=warnings, **told)
    return reading if requests is None else reading.standing_on(requests)


def _agreed(output: Output, per_second: float) -> int | None:
    """How many requests its progress counted, which its table has to agree with; None if it shows no progress.

    In cluster mode the table leaves out arbitrary commands (cluster_client.cpp: handle_response).
    """
    progress = output.all(r"\[RUN .*\s(\d+) ops,\s+\d+ \(avg:\s+(\d+)\) ops/sec,.*")
    if not progress:
        return None
    requests, average = int(progress[-1][1]), int(progress[-1][2])
    if not requests:
        raise ValueError("no request was answered")
    if not per_second:
        raise ValueError(
            f"its table has no operation of the {requests:,} that it made: it does not count a --command such as EVAL "
            "in --cluster-mode; measure one node, without --cluster-mode"
        )
    if not average / APART <= per_second <= average * APART:
        raise ValueError(f"its figures contradict each other: {per_second:g} Ops/sec, on average {average:,} ops/sec")
    return requests


ADAPTER = Adapter("memtier_benchmark", ("memtier_benchmark", "memtier-benchmark"), read, loop="closed")
