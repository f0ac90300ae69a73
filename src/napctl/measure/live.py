"""Live traffic as the load of an experiment: nothing is made, and a treatment that harms is taken back at once."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from napctl.attach.report import suspended_between
from napctl.measure.compare import Harmful, Told
from napctl.measure.gauge import Gauge
from napctl.model.suspensioncounts import SuspensionCounts
from napctl.probe.suspension import SuspensionProbe

CHECK_SECONDS = 0.2
"""Between two looks at the limits."""
FEW_PACKETS = 50
"""Of so few a percentile says nothing."""


@dataclass(frozen=True)
class Limits:
    """What live traffic may suffer before a treatment is taken back. None: no limit."""

    wait_p99_us: float | None = None
    """99 % of the packets wait at most that long for their poll: the proxy for latency."""
    drops_per_second: float | None = None
    retransmits_per_second: float | None = None


class LiveLoad:
    """The traffic that is there. Use as a context manager. Raises ProbeUnavailable where waits cannot be seen."""

    def __init__(self, napi_ids: Collection[int], limits: Limits):
        self._ids, self._limits = frozenset(napi_ids), limits

    def __enter__(self) -> Self:
        self._probe = SuspensionProbe.load()
        return self

    def __exit__(self, *exc: object) -> None:
        self._probe.close()

    @contextmanager
    def primed(self) -> Iterator[None]:
        """The connections are there."""
        yield

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, gauge: Gauge) -> Told:
        """Look on for that long. Raises Harmful as soon as a limit is passed."""
        gauge.begin()
        before = self._probe.read()
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, CHECK_SECONDS))
            self._check(self._waits(before), gauge)
        waits, figures = self._waits(before), gauge.end()
        metrics = {}
        if waits is not None and waits.packets >= FEW_PACKETS:
            metrics["packets_per_second"] = waits.packets / figures.seconds
            for name, share in (("wait_p50_us", 0.5), ("wait_p99_us", 0.99)):
                us = waits.wait_percentile_us(share)
                if us is not None and us != float("inf"):
                    metrics[name] = us
        return Told(metrics=metrics, latency=(), figures=figures)

    def _waits(self, before: tuple[SuspensionCounts, ...]) -> SuspensionCounts | None:
        found = [each for each in suspended_between(before, self._probe.read()).values() if each.napi_id in self._ids]
        together = found[0] if found else None
        for each in found[1:]:
            together = together + each if together else each
        return together

    def _check(self, waits: SuspensionCounts | None, gauge: Gauge) -> None:
        figures = dict(gauge.trouble())
        if waits is not None and waits.packets >= FEW_PACKETS:
            figures["wait_p99_us"] = waits.wait_percentile_us(0.99) or 0.0
        for name, value in figures.items():
            limit = getattr(self._limits, name, None)
            if limit is not None and value > limit:
                raise Harmful(f"taken back at once: {name} was {value:,.0f}, the limit is {limit:,.0f}")
