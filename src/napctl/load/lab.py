"""The lab's own load, an open loop on the server of the lab, as an experiment takes it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napctl.lab.bed import Lab
from napctl.lab.load import LoadResult, LoadSpec, Protocol, started
from napctl.lab.servers import Server
from napctl.load.base import REST, Meter, Told
from napctl.load.tools.reading import PERCENTILES, Reading
from napctl.model.value import to_json

__all__ = ["CLOSED_DEPTH", "CONNECTIONS", "KEYS_PER_GET", "WARMUP_SECONDS", "LabLoad"]


CONNECTIONS = 16
KEYS_PER_GET = 10
"""Enough work per request that the server saturates long before the load generator does."""
CLOSED_DEPTH = 8
"""Requests that each connection always has outstanding where as much as possible is asked for."""
WARMUP_SECONDS = 0.5
LEAST_WARMUP_SECONDS = 0.05
"""In which connections are made."""
LATE, BUSY = 0.01, 0.9


class LabLoad:
    """Open-loop load on a server of the lab. A rate of 0 stands for as much as it can answer, REST for nothing."""

    def __init__(
        self, lab: Lab, server: Server, warmup_seconds: float = WARMUP_SECONDS, keys_per_get: int = KEYS_PER_GET,
        *, protocol: Protocol = "memcached",
    ):  # fmt: skip
        self._lab, self._server, self._warmup_seconds = lab, server, max(LEAST_WARMUP_SECONDS, warmup_seconds)
        self._keys_per_get, self._protocol = keys_per_get, protocol

    def settle(self, seconds: float, meter: Meter) -> None:
        """Wait."""
        time.sleep(seconds)

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, meter: Meter) -> Told:
        """Raises NapctlError if it fails."""
        spec = LoadSpec(
            rate_per_second=0 if rate == REST else rate,
            seconds=seconds,
            warmup_seconds=self._warmup_seconds,
            connections=CONNECTIONS,
            keys_per_get=self._keys_per_get,
            closed_depth=0 if rate else CLOSED_DEPTH,
            seed=seed,
            protocol=self._protocol,
        )
        with started(self._lab, self._server, spec) as load:
            load.wait_for_warmup()
            meter.begin()
            time.sleep(seconds)
            figures = meter.end()
            result = load.result()
        raw.write_bytes(to_json(result) + b"\n")
        warnings = _warnings(result)
        return Told(
            metrics=_metrics(result),
            latency=result.histogram,
            figures=figures,
            warnings=warnings,
            disturbed=bool(warnings),
            errors=result.unanswered if rate != REST else None,
        )

    @contextmanager
    def primed(self) -> Iterator[None]:
        """A little load, so that the server's epoll instances and what feeds them can be seen."""
        spec = LoadSpec(
            rate_per_second=1000, seconds=5, warmup_seconds=0.1, connections=CONNECTIONS, protocol=self._protocol
        )
        with started(self._lab, self._server, spec) as load:
            load.wait_for_warmup()
            yield


def _metrics(result: LoadResult) -> dict[str, float]:
    if not result.histogram:
        return {}
    found = {"requests_per_second": result.achieved_per_second}
    answered = sum(count for _, count in result.histogram)
    found["latency_avg_us"] = sum(us * count for us, count in result.histogram) / answered
    percentiles: dict[str, Any] = {name: result.percentile_us(float(share)) for name, share in PERCENTILES.items()}
    return found | Reading(**percentiles).standing_on(answered).metrics()


def _warnings(result: LoadResult) -> tuple[str, ...]:
    """What makes latencies the load's own."""
    found = []
    if result.busy_share > BUSY:
        found.append("the load generator was the limit")
    if result.late_share > LATE:
        found.append("the load generator was late: latencies are partly its own")
    return tuple(found)
