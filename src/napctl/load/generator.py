"""How busy a load generator on this machine is: a tool that has no CPU time left measures itself, not the server."""

import time
from pathlib import Path
from typing import NamedTuple

from napctl.kernel.processes import PROC
from napctl.kernel.schedstat import turns

__all__ = ["GeneratorWatch"]


LOOK_SECONDS = 0.25
"""Between two looks at its threads."""
FEWEST_SECONDS = 0.5
"""A thread that was seen for less tells nothing: tools are busy while they start."""
SATURATED_SHARE = 0.95


class _Seen(NamedTuple):
    """A thread at a time, s."""

    at: float
    ran: float
    """CPU time since its start."""
    wanted: float
    """The same, and that for which it waited for a CPU."""


class GeneratorWatch:
    """The threads of a command and of its descendants, looked at from time to time while it runs.

    Of each the time counts that it ran or waited for a CPU (Documentation/scheduler/sched-stats.rst, schedstat of a
    task), as a generator whose CPU others take is as much of a limit.
    """

    def __init__(self, pid: int):
        self._pid = pid
        self._first: dict[int, _Seen] = {}
        self._last: dict[int, _Seen] = {}
        """By thread."""
        self._due = 0.0

    def look(self) -> None:
        """To be called often; looks if it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + LOOK_SECONDS
        pids = [self._pid]
        for pid in pids:  # grows: children of children too
            for task in _entries(PROC / str(pid) / "task"):
                thread = int(task.name)
                if (seen := _seen(thread)) is not None:
                    self._last[thread] = seen
                    self._first.setdefault(thread, seen)
                pids += [int(child) for child in _text(task / "children").split()]

    @property
    def ran_seconds(self) -> float:
        """CPU time of all its threads as they were last seen, s."""
        return sum(last.ran for last in self._last.values())

    @property
    def busiest_share(self) -> float | None:
        """The greatest share of its time for which a thread wanted a CPU; None if none was seen for long enough."""
        shares = [
            (last.wanted - self._first[thread].wanted) / (last.at - self._first[thread].at)
            for thread, last in self._last.items()
            if last.at - self._first[thread].at >= FEWEST_SECONDS
        ]
        return max(shares, default=None)

    @property
    def saturated(self) -> bool | None:
        """Whether a thread had next to no time left; None if that cannot be told."""
        share = self.busiest_share
        return None if share is None else share > SATURATED_SHARE


def _seen(thread: int) -> _Seen | None:
    if (times := turns(thread)) is None:
        return None
    ran, waited = times.ran_ns / 1e9, times.waited_ns / 1e9
    return _Seen(time.monotonic(), ran, ran + waited)


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:  # it has ended
        return []


def _text(path: Path) -> str:
    """Empty if it has ended, or this kernel has no such file."""
    try:
        return path.read_text()
    except OSError:
        return ""
