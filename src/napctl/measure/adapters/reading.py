"""What a load tool told of one run, and who can read it from the tool's output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from napctl.model.value import Value


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

        Raises ValueError with one line that names the tool and what was not found, or was not clear.
        """
        try:
            return self.parse(output)
        except ValueError as error:
            raise ValueError(f"{self.name}: {' '.join(str(error).split())}") from None


def failures(errors: int | None, requests: int) -> tuple[str, ...]:
    """The warning that requests failed, if any did. `requests`: how many there were."""
    return (f"{errors:,} of {requests:,} requests failed",) if errors else ()
