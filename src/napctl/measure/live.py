"""Live traffic as the load of an experiment: nothing is made, and a treatment that harms is taken back at once."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from napctl.attach.report import suspended_between
from napctl.measure.compare import Harmful, Told
from napctl.measure.gauge import Gauge
from napctl.model.experiment import RunConfig
from napctl.model.suspensioncounts import WAIT_BOUNDS_US, SuspensionCounts
from napctl.probe.suspension import SuspensionProbe

CHECK_SECONDS = 0.2
"""Between two looks at the limits."""
LONGEST_US = WAIT_BOUNDS_US[-2]
"""Longer waits are not told apart."""
FEW_PACKETS = 50
"""Of so few a percentile says nothing."""


class LiveLoad:
    """The traffic that is there. Use as a context manager. Raises ProbeUnavailable where waits cannot be seen.

    99 % of the packets must wait for their poll no longer than the limit: the proxy for latency.
    """

    def __init__(self, napi_ids: Collection[int], config: RunConfig):
        self._ids = frozenset(napi_ids)
        limits = {
            "wait_p99_us": config.max_wait_p99_us,
            "drops_per_second": config.max_drops_per_second,
            "retransmits_per_second": config.max_retransmits_per_second,
        }
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}

    def __enter__(self) -> Self:
        self._probe = SuspensionProbe.load()
        self._lost = self._probe.lost_polls
        return self

    def __exit__(self, *exc: object) -> None:
        self._probe.close()

    def settle(self, seconds: float, gauge: Gauge) -> None:
        """Look on, as a treatment may harm from its first moment on. Raises Harmful."""
        gauge.begin()
        self._look_on(seconds, self._probe.read(), gauge)

    @contextmanager
    def primed(self) -> Iterator[None]:
        """The connections are there."""
        yield

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, gauge: Gauge) -> Told:
        """Look on for that long. Raises Harmful as soon as a limit is passed."""
        gauge.begin()
        before = self._probe.read()
        self._look_on(seconds, before, gauge)
        waits, figures = self._waits(before), gauge.end()
        metrics, warnings = {}, []
        if waits is not None and waits.packets >= FEW_PACKETS:
            metrics["packets_per_second"] = waits.packets / figures.seconds
            for name, share in (("wait_p50_us", 0.5), ("wait_p99_us", 0.99)):
                us = waits.wait_percentile_us(share)
                if us is not None and us > LONGEST_US:
                    warnings.append(f"{name} is at least {LONGEST_US / 1000:.0f} ms, and counted as that")
                if us is not None:
                    metrics[name] = min(us, LONGEST_US)
        return Told(metrics=metrics, latency=(), figures=figures, warnings=tuple(warnings))

    def _look_on(self, seconds: float, before: tuple[SuspensionCounts, ...], gauge: Gauge) -> None:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, CHECK_SECONDS))
            self._check(self._waits(before), gauge)

    def _waits(self, before: tuple[SuspensionCounts, ...]) -> SuspensionCounts | None:
        found = [each for each in suspended_between(before, self._probe.read()).values() if each.napi_id in self._ids]
        together = found[0] if found else None
        for each in found[1:]:
            together = together + each if together else each
        return together

    def _check(self, waits: SuspensionCounts | None, gauge: Gauge) -> None:
        if "wait_p99_us" in self._limits and self._probe.lost_polls > self._lost:
            raise Harmful("waits cannot be watched: a NAPI instance found no place in the probe's table")
        figures = dict(gauge.trouble())
        if waits is not None and waits.packets >= FEW_PACKETS:
            figures["wait_p99_us"] = waits.wait_percentile_us(0.99) or 0.0
        for name, limit in self._limits.items():
            if figures.get(name, 0.0) > limit:
                raise Harmful(f"{name} was {figures[name]:,.0f}, the limit is {limit:,.0f}")
