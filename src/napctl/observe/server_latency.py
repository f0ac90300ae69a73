"""The latency of a target's processes, window by window; where it cannot be seen, why."""

import time
from collections.abc import Collection
from typing import NamedTuple, Self

from napctl.kernel.process_tree import descendants
from napctl.kernel.running_kernel import in_initial_pid_namespace
from napctl.model.latency import ProcessLatency, ServerLatency, latency_between
from napctl.probe import ProbeUnavailable
from napctl.probe.latency import LatencyProbe, Losses

__all__ = ["LatencyMeter"]


FEW = 0.01
"""Share of the samples that may be missing without a word."""


class LatencyMeter:
    """Windows of the server-side latency of some processes. A context manager; the first window begins with it."""

    def __init__(self, pids: Collection[int]):
        self._pids = set(pids)
        self._probe: LatencyProbe | None = None
        self._unavailable = ""
        try:
            if not in_initial_pid_namespace():
                raise ProbeUnavailable("napctl is not in the initial PID namespace")
            self._probe = LatencyProbe.load(self._pids)
        except ProbeUnavailable as error:
            self._unavailable = f"server-side latency: {error.reason}"
        self.restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._probe:
            self._probe.close()

    def add(self, pid: int) -> None:
        """Count that process as well from now on: a worker that was forked meanwhile."""
        if self._probe and pid not in self._pids:
            self._pids.add(pid)
            self._probe.add(pid)

    def add_workers(self) -> None:
        """The same with all that descend from these processes by now."""
        for process in descendants(self._pids) if self._probe else ():
            self.add(process.pid)

    def restart(self) -> None:
        """Let the next window, and the whole, begin now."""
        self._last = self._first = self._read()

    def window(self) -> ServerLatency:
        """What came since the last window ended, or since the start. Of a window without samples it says so."""
        before, self._last = self._last, self._read()
        return self._between(before)

    def since_start(self) -> ServerLatency:
        """The sum of all windows so far."""
        return self._between(self._first)

    def _read(self) -> "_Reading":
        if not self._probe:
            return _Reading(time.monotonic(), (), Losses(0, 0, 0, 0))
        return _Reading(time.monotonic(), self._probe.read(), self._probe.losses)

    def _between(self, before: "_Reading") -> ServerLatency:
        found = latency_between(before.processes, self._last.processes)
        return ServerLatency(
            seconds=self._last.at - before.at,
            processes=found,
            lacks=tuple(lacks(found, before.losses, self._last.losses)) if self._probe else (self._unavailable,),
        )


class _Reading(NamedTuple):
    """Of the probe."""

    at: float
    processes: tuple[ProcessLatency, ...]
    losses: Losses


def lacks(found: Collection[ProcessLatency], before: Losses, after: Losses) -> list[str]:
    """What a window between two readings of the losses does not hold, in clauses."""
    lost, unread, datagrams, unseen = (now - then for then, now in zip(before, after, strict=True))
    samples = sum(each.until_read.samples for each in found)
    words = []
    if not samples and unread:
        words.append("server-side latency: it reads by other means than recv, such as splice")
    elif not samples:
        words.append("server-side latency: it read nothing by recv in this window")
    elif unread > FEW * (samples + unread):
        words.append(f"{unread:,} of {samples + unread:,} requests looked at: read by other means than recv")
    if lost > FEW * (samples + lost):
        words.append(f"{lost:,} of {samples + lost:,} requests looked at: no room in the probe's table")
    if unseen > 0.05 * max(datagrams, 1):
        words.append(
            f"when {unseen:,} of {datagrams:,} datagrams came: the kernel woke nobody for them, so what is told of "
            "the others is a lower bound"
        )
    return words
