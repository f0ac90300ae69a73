"""The latency of a server as its own machine sees it, in words, for `watch` and `attached`."""

from collections.abc import Iterator

from napctl.model.latency import LatencyFigures, LatencySummary

__all__ = ["latency_lines"]


def latency_lines(latency: LatencySummary) -> Iterator[str]:
    """A sentence of all processes together, one of each where there are several, and one of the wait for a poll."""
    if not latency.together:
        return
    yield _sentence("server-side latency", latency.together)
    if len(latency.processes) > 1:
        yield from (_sentence(f"pid {each.pid}", each) for each in latency.processes)
    bound = _pair(latency.together.wait_for_poll_p50_us, latency.together.wait_for_poll_p99_us)
    samples = latency.together.samples
    yield f"of it, time until a packet is polled (upper bound): {bound}; {samples:,} requests looked at"


def _sentence(name: str, figures: LatencyFigures) -> str:
    read = _pair(figures.until_read_p50_us, figures.until_read_p99_us)
    reply = _pair(figures.until_reply_p50_us, figures.until_reply_p99_us)
    return f"{name}: read {read}; replied {reply}"


def _pair(p50_us: float | None, p99_us: float | None) -> str:
    if p50_us is None or p99_us is None:
        return "not seen"
    return f"p50 {_time(p50_us)}, p99 {_time(p99_us)}"


def _time(us: float) -> str:
    """As sure as the histogram is: the first bucket ends at 1 µs, and two figures of ms are enough."""
    if us < 1.024:
        return "below 1 µs"
    if us < 10_000:
        return f"{us:,.0f} µs"
    return f"{us / 1000:,.0f} ms" if us < 10_000_000 else f"{us / 1e6:.0f} s"
