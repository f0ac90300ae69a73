"""A load that the user names: a command, run for each cell, and read by its adapter."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napctl.load.base import Figures, Meter, Told
from napctl.load.process import LoadCommand, run_load
from napctl.load.tools import Reading
from napctl.model.experiment import RunConfig
from napctl.model.units import percent

__all__ = ["CommandLoad"]


PRIME_SECONDS = 2.0
"""Of a run before the first cell, in which the server is examined."""
OWN_CPU = 0.05
"""From this share of the busy CPU time on the generator's part in it is told."""
ELSEWHERE = 0.05
"""From this share of the packets on it matters that connections of now are on other queues than the first ones were."""
MOST_OF_SECONDS = 1.1
"""How much longer than its requests a load may take, to start, connect and end, without saying so."""
SATURATED = "the load generator was the limit"


class CommandLoad:
    """Runs a command for each cell. Raises BadInput if nobody can read what it prints."""

    def __init__(self, config: RunConfig):
        self._command = LoadCommand.of(config.load, adapter=config.adapter, max_template=config.max_load)
        self._command.check(config.rates)
        self._config = config

    def settle(self, seconds: float, meter: Meter) -> None:
        """Wait."""
        time.sleep(seconds)

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, meter: Meter) -> Told:
        """Raises NapctlError, with the command's last words, if it failed, took too long or told no figures."""
        if self._config.warmup_seconds:
            self._run(rate, self._config.warmup_seconds, seed, raw.with_suffix(".warmup"))
        meter.begin()
        reading = self._run(rate, seconds, seed, raw)
        figures = meter.end()
        return Told(
            metrics=reading.metrics(),
            latency=reading.latency,
            figures=figures,
            warnings=(*reading.warnings, *_doubts(reading, figures, self._timed(seconds))),
            errors=reading.errors,
            load_seconds=self._timed(seconds),
        )

    def _timed(self, seconds: float) -> float | None:
        """For how long it makes requests, if it is told."""
        return seconds if self._command.is_told_seconds else None

    @contextmanager
    def primed(self) -> Iterator[None]:
        """A run of it in the background. Raises NapctlError if it fails."""
        failures: list[BaseException] = []

        def prime(raw: Path) -> None:
            rate = self._config.rates[0] if self._config.rates else 0
            try:
                self._run(rate, PRIME_SECONDS, 0, raw)
            except BaseException as error:
                failures.append(error)

        with tempfile.TemporaryDirectory(prefix="napctl-compare-") as scratch:
            thread = threading.Thread(target=prime, args=(Path(scratch) / "prime.out",), name="napctl-prime")
            thread.start()
            try:
                yield
            finally:
                thread.join()
            if failures:
                raise failures[0]

    def _run(self, rate: float, seconds: float, seed: int, raw: Path) -> Reading:
        return run_load(
            self._command, rate=rate, seconds=seconds, seed=seed, limit_seconds=self._config.limit_seconds,
            raw_path=raw,
        )  # fmt: skip


def _doubts(reading: Reading, figures: Figures, seconds: float | None) -> Iterator[str]:
    """What makes a cell's figures doubtful. `seconds`: for how long requests were to be made; None: not known."""
    if reading.saturated:
        yield SATURATED
    busy = figures.metrics["cpu_share"] * figures.cpus * figures.seconds
    if busy and reading.generator_seconds > OWN_CPU * busy:
        share = percent(min(1.0, reading.generator_seconds / busy))
        yield f"the load generator ran on this machine: {share} of the CPU time is its own"
    if figures.elsewhere > ELSEWHERE:
        yield f"{percent(figures.elsewhere)} of the packets came by NAPI instances that treatments do not cover"
    if seconds and figures.seconds > MOST_OF_SECONDS * seconds:
        yield f"the load took {figures.seconds:.1f} s for {seconds:g} s of requests: CPU is of both"
