"""mutilate: its table by type of request, and "Total QPS" (mutilate.cc: main, ConnectionStats.h: print_header).

Which percentiles it prints differs between its versions, so columns are found by their names. Latencies are in µs.
"""

from typing import Any

from napctl.load.tools.checks import Printed, check_rate
from napctl.load.tools.numbers import NUMBER, Output, microseconds, number
from napctl.load.tools.reading import Adapter, Reading

__all__ = ["ADAPTER"]


COLUMNS = {
    "avg": "latency_avg_us",
    "50th": "latency_p50_us",
    "95th": "latency_p95_us",
    "99th": "latency_p99_us",
    "99.9th": "latency_p999_us",
}


def read(text: str) -> Reading:
    """What mutilate told. Raises ValueError."""
    output = Output(text)
    rate = output.one(rf"Total QPS = ({NUMBER}) \((\d+) / ({NUMBER})s\)", "Total QPS")
    requests = int(rate[2])
    if not requests:
        raise ValueError("no request was answered")
    check_rate(Printed.of(rate[1]), requests, Printed.of(rate[3]))
    names = output.one(r"#type\s.*", "#type")[0].split()[1:]
    reads, updates = (_row(output, kind, names) for kind in ("read", "update"))
    warnings = []
    if reads and updates:
        warnings.append("mutilate tells no latency of all requests: these are the reads'")
    for what, sentence in (("Misses", "reads found no value"), ("Skipped TXs", "requests were skipped, being late")):
        counted = output.maybe(rf"{what} = (\d+) \(.*\)", what)
        if counted and int(counted[1]):
            warnings.append(f"{int(counted[1]):,} {sentence}")
    told = Reading(requests_per_second=number(rate[1]), warnings=tuple(warnings), **(reads or updates))
    return told.standing_on(requests)


def _row(output: Output, kind: str, names: list[str]) -> dict[str, Any]:
    """Latencies of one type by field of a Reading; none if there were no such requests: it prints zeros then."""
    row = output.maybe(rf"{kind}\s+((?:{NUMBER}\s*)+)", kind)
    values = [microseconds(value, "us") for value in row[1].split()] if row else []
    if not any(values):
        return {}
    if len(values) != len(names):
        raise ValueError(f"{len(values)} figures in {len(names)} columns of '{kind}'")
    return {COLUMNS[name]: value for name, value in zip(names, values, strict=True) if name in COLUMNS}


ADAPTER = Adapter("mutilate", ("mutilate",), read)
