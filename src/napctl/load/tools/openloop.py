"""napctl's own load generator, and `napctl lab run --json`: the JSON of a LoadResult."""

from napctl.lab.load import LoadResult
from napctl.load.tools.reading import Adapter, Reading, failures
from napctl.model.units import percent
from napctl.model.value import from_json

__all__ = ["ADAPTER"]


SATURATED_SHARE = 0.9
"""From this share of a CPU, without fruitless polls, the generator is a limit itself; as `napctl lab run` has it."""
LATE_SHARE = 0.1


def read(text: str) -> Reading:
    """What the generator told. Raises ValueError."""
    lines = [line for line in text.splitlines() if line.startswith("{") and '"achieved_per_second"' in line]
    if len(lines) != 1:
        raise ValueError(f"{len(lines)} results in its output, as one line of JSON each")
    try:
        result = from_json(lines[0], LoadResult)
    except ValueError as error:
        raise ValueError(f"its result does not fit: {error}") from None
    _check(result)
    warnings = failures(result.unanswered, result.sent)
    if result.late_share > LATE_SHARE:
        warnings += (f"the generator itself sent {percent(result.late_share)} of the requests late",)
    reading = Reading(
        requests_per_second=result.achieved_per_second,
        latency_p50_us=result.p50_us,
        latency_p95_us=result.percentile_us(0.95),
        latency_p99_us=result.p99_us,
        latency_p999_us=result.p999_us,
        errors=result.unanswered,
        latency=result.histogram,
        saturated=result.busy_share > SATURATED_SHARE,
        warnings=warnings,
    )
    return reading.standing_on(result.answered)


def _check(result: LoadResult) -> None:
    """Raises ValueError if nothing was answered, or if its figures contradict each other.

    Answers that came after the measured part have a latency, and no place in its rate.
    """
    if not result.answered:
        raise ValueError("no request was answered")
    counts, uppers = [count for _, count in result.histogram], [upper_us for upper_us, _ in result.histogram]
    if result.sent != result.answered + result.unanswered or sum(counts) != result.answered or min(counts) < 1:
        raise ValueError("the counts of its requests contradict each other")
    if sorted(set(uppers)) != uppers or uppers[0] <= 0:
        raise ValueError("its distribution of latencies falls")
    if result.seconds <= 0:
        raise ValueError("it measured for no time")


ADAPTER = Adapter("openloop", ("openloop", "openloop-*"), read, loop="open")
