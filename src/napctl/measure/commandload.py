"""A load that the user names: a command, run for each cell, and read by its adapter."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napctl.kernel.namespaces import NetworkNamespace
from napctl.measure.adapters import Reading
from napctl.measure.compare import Told
from napctl.measure.gauge import Gauge
from napctl.measure.loadrun import LoadCommand, run_load
from napctl.model.errors import NapctlError
from napctl.model.experiment import RunConfig

PRIME_SECONDS = 2.0
"""Of a run before the first cell, in which the server is examined."""
SATURATED = "the load generator was the limit"


class CommandLoad:
    """Runs a command for each cell. Raises BadInput if nobody can read what it prints.

    `namespace`: the network namespace it runs in; None is the caller's.
    """

    def __init__(self, config: RunConfig, namespace: NetworkNamespace | None = None):
        self._command = LoadCommand.of(config.load, adapter=config.adapter, max_template=config.max_load)
        self._config, self._namespace = config, namespace

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, gauge: Gauge) -> Told:
        """Raises NapctlError, with the command's last words, if it failed, took too long or told no figures."""
        if self._config.warmup_seconds:
            self._run(rate, self._config.warmup_seconds, seed, raw.with_suffix(".warmup"))
        gauge.begin()
        reading = self._run(rate, seconds, seed, raw)
        figures = gauge.end()
        warnings = (*reading.warnings, *((SATURATED,) if reading.saturated else ()))
        return Told(metrics=reading.metrics(), latency=reading.latency, figures=figures, warnings=warnings)

    @contextmanager
    def primed(self) -> Iterator[None]:
        """A run of it in the background. Raises NapctlError if it fails."""
        failures: list[NapctlError] = []

        def prime(raw: Path) -> None:
            rate = self._config.rates[0] if self._config.rates else 0
            try:
                self._run(rate, PRIME_SECONDS, 0, raw)
            except NapctlError as error:
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
            namespace=self._namespace,
        )  # fmt: skip
