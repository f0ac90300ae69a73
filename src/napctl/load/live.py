"""Live traffic as the load of an experiment: nothing is made, and a treatment that harms is taken back at once."""

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from napctl.load.base import Harmful, Meter, Told
from napctl.model.experiment import RunConfig
from napctl.model.latency import ServerLatency
from napctl.model.suspension_counts import WAIT_BOUNDS_US, SuspensionCounts, suspended_between
from napctl.observe.server_latency import LatencyMeter
from napctl.probe.suspension import SuspensionProbe

__all__ = ["LiveLoad"]


CHECK_SECONDS = 0.2
"""Between two looks at the limits."""
LONGEST_US = WAIT_BOUNDS_US[-2]
"""Longer waits for a poll are not told apart."""
FEW = 50
"""Of so few packets, or requests, a percentile says nothing."""
SHARES = {"p50": 0.5, "p99": 0.99}


class LiveLoad:
    """The traffic that is there. Use as a context manager. Raises ProbeUnavailable where waits cannot be seen.

    Latency is that of the server's processes, until they have read; where it cannot be seen, how long packets waited
    for their poll. 99 % must stay within the limit.
    """

    def __init__(self, napi_ids: Collection[int], pids: Collection[int], config: RunConfig):
        self._ids = frozenset(napi_ids)
        self._pids = frozenset(pids)
        self._max_p99_us = config.max_wait_p99_us
        limits = {
            "drops_per_second": config.max_drops_per_second,
            "retransmits_per_second": config.max_retransmits_per_second,
        }
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._probe = undo.enter_context(SuspensionProbe.load())
            self._latency = undo.enter_context(LatencyMeter(self._pids))
            self._open = undo.pop_all()
        self._lost = self._probe.lost_polls
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def settle(self, seconds: float, meter: Meter) -> None:
        """Look on, as a treatment may harm from its first moment on. Raises Harmful."""
        meter.begin()
        self._look_on(seconds, self._begin(), meter)

    @contextmanager
    def primed(self) -> Iterator[None]:
        """The connections are there."""
        yield

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, meter: Meter) -> Told:
        """Look on for that long. Raises Harmful as soon as a limit is passed."""
        meter.begin()
        before = self._begin()
        self._look_on(seconds, before, meter)
        waits, latency, figures = self._waits(before), self._server_latency(), meter.end()
        metrics, warnings = {}, []
        if waits is not None and waits.packets >= FEW:
            metrics["packets_per_second"] = waits.packets / figures.seconds
            for name, us in _percentiles(waits).items():
                if us > LONGEST_US:
                    warnings.append(f"{name} is at least {LONGEST_US / 1000:.0f} ms, and counted as that")
                metrics[name] = min(us, LONGEST_US)
        told = latency.together
        if told is not None and told.until_read.samples >= FEW:
            for name, share in SHARES.items():
                metrics[f"server_latency_{name}_us"] = (told.until_read.percentile_ns(share) or 0.0) / 1000
        warnings.extend(latency.lacks if metrics else ())
        return Told(metrics=metrics, latency=(), figures=figures, warnings=tuple(warnings))

    def _begin(self) -> tuple[SuspensionCounts, ...]:
        self._latency.restart()
        return self._probe.read()

    def _look_on(self, seconds: float, before: tuple[SuspensionCounts, ...], meter: Meter) -> None:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, CHECK_SECONDS))
            self._check(before, meter)

    def _server_latency(self) -> ServerLatency:
        self._latency.window()
        return self._latency.since_start()

    def _waits(self, before: tuple[SuspensionCounts, ...]) -> SuspensionCounts | None:
        found = [each for each in suspended_between(before, self._probe.read()).values() if each.napi_id in self._ids]
        together = found[0] if found else None
        for each in found[1:]:
            together = together + each if together else each
        return together

    def _check(self, before: tuple[SuspensionCounts, ...], meter: Meter) -> None:
        if self._max_p99_us is not None:
            for name, us in self._p99(before):
                _refuse_beyond(name, us, self._max_p99_us)
        figures = meter.trouble()
        for name, limit in self._limits.items():
            _refuse_beyond(name, figures.get(name, 0.0), limit)

    def _p99(self, before: tuple[SuspensionCounts, ...]) -> Iterator[tuple[str, float]]:
        """What the limit of the latency is for, by its name; nothing of too little traffic."""
        told = self._server_latency().together
        if told is not None and told.until_read.samples >= FEW:
            yield "server_latency_p99_us", (told.until_read.percentile_ns(0.99) or 0.0) / 1000
            return
        if self._probe.lost_polls > self._lost:
            raise Harmful("waits cannot be watched: a NAPI instance found no place in the probe's table")
        waits = self._waits(before)
        if waits is not None and waits.packets >= FEW:
            yield "wait_p99_us", waits.wait_percentile_us(0.99) or 0.0


def _percentiles(waits: SuspensionCounts) -> dict[str, float]:
    found = {f"wait_{name}_us": waits.wait_percentile_us(share) for name, share in SHARES.items()}
    return {name: us for name, us in found.items() if us is not None}


def _refuse_beyond(name: str, figure: float, limit: float) -> None:
    if figure > limit:
        raise Harmful(f"{name} was {figure:,.0f}, the limit is {limit:,.0f}")
