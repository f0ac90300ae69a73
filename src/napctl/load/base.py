"""What every load of an experiment is, and what it tells of a cell."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from napctl.model.errors import NapctlError

__all__ = ["REST", "Figures", "Harmful", "Load", "Meter", "Told"]


REST = -1.0
"""The rate that stands for open connections and no requests."""


@dataclass(frozen=True)
class Figures:
    """What a cell came to."""

    seconds: float
    cpus: int
    """Those that count."""
    machine_cpu_share: float
    """Busy share of all CPUs."""
    elsewhere: float
    """Share of the devices' packets that came by NAPI instances which do not count."""
    metrics: dict[str, float]
    sources: dict[str, str]
    polls: dict[str, tuple[int, ...]]
    warnings: tuple[str, ...]

    def per_request(self, requests: float) -> dict[str, float]:
        """CPU time and energy for each of so many requests in the span; what was not measured is missing."""
        if not requests:
            return {}
        found = {"cpu_us_per_request": self.metrics["cpu_share"] * self.cpus * self.seconds * 1e6 / requests}
        if "server_cpu_share" in self.metrics:
            found["server_cpu_us_per_request"] = self.metrics["server_cpu_share"] * self.seconds * 1e6 / requests
        if "package_watts" in self.metrics:  # the memory is not part of the package; what a board's meter tells is
            watts = self.metrics["package_watts"] + self.metrics.get("dram_watts", 0.0)
            found["joules_per_request"] = watts * self.seconds / requests
        return found


class Meter(Protocol):
    """What measures beside a load: spans of time, one after the other."""

    def begin(self) -> None:
        """A span begins."""

    def end(self) -> Figures:
        """What it came to."""

    def trouble(self) -> dict[str, float]:
        """Drops and retransmits a second so far, by their metrics' names: what limits on live traffic are set for."""


class Harmful(NapctlError):
    """A treatment went beyond a limit that the user set for live traffic, and was taken back."""


@dataclass(frozen=True)
class Told:
    """What a load told of one cell, and what was measured beside it."""

    metrics: dict[str, float]
    latency: tuple[tuple[float, int], ...]
    figures: Figures
    warnings: tuple[str, ...] = ()
    disturbed: bool = False
    """Whether other work of the machine came in the way of the load: that says nothing of the treatment."""
    errors: float | None = None
    """Requests that failed or stayed without an answer; None: not told."""
    load_seconds: float | None = None
    """For how long requests were made; None: in all of the span that the figures are of."""

    def seconds(self) -> float:
        """For how long requests were made in that span."""
        whole = self.figures.seconds
        return whole if self.load_seconds is None else min(self.load_seconds, whole)

    def of_requests(self) -> dict[str, float]:
        """Figures that take both sides: CPU time and energy for each request, and errors a second."""
        found = self.figures.per_request(self.metrics.get("requests_per_second", 0.0) * self.seconds())
        return found if self.errors is None else found | {"errors_per_second": self.errors / self.seconds()}


class Load(Protocol):
    """What the server is loaded with."""

    def settle(self, seconds: float, meter: Meter) -> None:
        """Wait after a switch. Raises Harmful."""

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, meter: Meter) -> Told:
        """Make the load once, warm-up included, and measure meanwhile. `rate` 0: as much as possible.

        Raises NapctlError if it fails, or takes too long.
        """

    def primed(self) -> AbstractContextManager[None]:
        """A little of it, so that the server has connections while it is examined."""
