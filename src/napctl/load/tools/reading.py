"""What a load tool told of one run, and who can read it from the tool's output."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self

from msgspec.structs import replace

from napctl.model.value import Value

__all__ = ["FIGURES", "PERCENTILES", "Adapter", "Reading", "failures"]


class Reading(Value, frozen=True, kw_only=True):
    """What the load measured. None: the tool did not tell it; never 0 for that."""

    requests_per_second: float | None = None
    """Answered requests; for UDP without answers, datagrams that arrived."""
    latency_avg_us: float | None = None
    latency_p50_us: float | None = None
    latency_p95_us: float | None = None
    latency_p99_us: float | None = None
    latency_p999_us: float | None = None
    bits_per_second: float | None = None
    """Payload that arrived; only of tools that count bits, not requests."""
    jitter_us: float | None = None
    """RFC 1889's, of datagrams."""
    errors: int | None = None
    """Requests that failed or stayed without an answer, and lost datagrams."""
    latency: tuple[tuple[float, int], ...] = ()
    """(latency in µs, requests): with at most that latency and more than the entry before; empty: not told."""
    saturated: bool | None = None
    """Whether the load generator itself was the limit; None if it does not say so."""
    generator_seconds: float = 0.0
    """CPU time of the tool on this machine, as far as it was seen."""
    warnings: tuple[str, ...] = ()
    """What makes its figures doubtful: one sentence each."""

    def metrics(self) -> dict[str, float]:
        """The figures that were told, by their names in napctl.model.metrics."""
        values = {name: getattr(self, name) for name in FIGURES}
        return {name: value for name, value in values.items() if value is not None}

    def standing_on(self, requests: int) -> Self:
        """Without the percentiles that so many requests are too few for: none of them is beyond it."""
        told = self.metrics()
        few = [name for name, share in PERCENTILES.items() if name in told and requests * (1 - share) < 1]
        if not few:
            return self
        warning = f"{', '.join(map(_words, few))} of {requests:,} requests is the slowest one: left out"
        return replace(self, **dict.fromkeys(few), warnings=(*self.warnings, warning))

    def check(self) -> None:
        """Raises ValueError if figures are of nothing or contradict each other.

        Of times with the mean m at most a share m/x is longer than x (Markov's inequality).
        """
        told = self.metrics()
        if told.get("requests_per_second") == 0:
            raise ValueError("no request was answered")
        for name, figure in told.items():
            if name.startswith("latency_") and not figure:
                raise ValueError(f"{_words(name)} is 0: nothing was measured, or in too coarse a unit")
        percentiles = [(name, told[name]) for name in PERCENTILES if name in told]
        for (less, low), (more, high) in pairwise(percentiles):
            if low > high * ROUNDING:
                raise ValueError(f"{_words(less)} is {low:g} µs and {_words(more)} {high:g} µs, which cannot be less")
        mean = told.get("latency_avg_us")
        for name, figure in percentiles:
            if mean is not None and figure * (1 - PERCENTILES[name]) > mean * ROUNDING:
                raise ValueError(f"with a {_words(name)} of {figure:g} µs the mean cannot be {mean:g} µs")


FIGURES = (
    "requests_per_second",
    "latency_avg_us",
    "latency_p50_us",
    "latency_p95_us",
    "latency_p99_us",
    "latency_p999_us",
    "bits_per_second",
    "jitter_us",
)
"""Fields of a Reading that are metrics."""
PERCENTILES = {
    "latency_p50_us": 0.5,
    "latency_p95_us": 0.95,
    "latency_p99_us": 0.99,
    "latency_p999_us": 0.999,
}
"""The share of the requests that is not slower."""
ROUNDING = 1.1
"""By how much two latencies of one run may contradict each other: a tool rounds one of them to two digits."""


@dataclass(frozen=True)
class Adapter:
    """How the output of one tool is read."""

    name: str
    programs: tuple[str, ...]
    """Names under which the tool is installed; * stands for anything."""
    parse: Callable[[str], Reading]
    """From the output to a Reading. Raises ValueError: what was not found."""
    loop: Literal["open", "closed", "unknown"] = "unknown"
    """closed: the next request waits for the answer before, so waiting hides itself (coordinated omission)."""

    def read(self, output: str) -> Reading:
        """What the tool told in its output (standard output, then standard error).

        Raises ValueError with one line that names the tool and what was not found, not clear, or contradicts itself.
        """
        try:
            reading = self.parse(output)
            reading.check()
            return reading
        except ValueError as error:
            raise ValueError(f"{self.name}: {' '.join(str(error).split())}") from None


def failures(errors: int | None, requests: int) -> tuple[str, ...]:
    """The warning that requests failed, if any did. `requests`: how many there were."""
    return (f"{errors:,} of {requests:,} requests failed",) if errors else ()


def _words(field: str) -> str:
    """ "p99.9" of latency_p999_us."""
    name = field.removeprefix("latency_").removesuffix("_us")
    return {"p999": "p99.9", "avg": "mean"}.get(name, name)
