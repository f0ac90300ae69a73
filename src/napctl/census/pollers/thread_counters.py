"""Counters of the CPU for threads that may spin, over a window: of programs that tell nothing of their time.

On a machine without such counters one system call finds out, and no more are made.
"""

import errno
from collections.abc import Iterable

from napctl.census.pollers.work_estimate import Counts
from napctl.kernel.perf_counters import HARDWARE, CounterGroup, GroupReading, PerfEvent, counted, why_refused

__all__ = ["ThreadCounters"]


MOST_THREADS = 32
"""With four descriptors each."""
OF_EACH = (errno.ESRCH, errno.EACCES, errno.EPERM)
"""Refusals that say nothing of the next thread."""
NEVER_RAN = "its counters never ran: others have them, or it is on a CPU of another kind"
DID_NOT_RUN = "it did not run meanwhile"


class ThreadCounters:
    """begin(), wait, end()."""

    def __init__(self, events: tuple[PerfEvent, ...] = HARDWARE):
        """`events`: what is counted as cycles, instructions, branches and branches that were mispredicted."""
        self._events = events
        self._groups: dict[int, tuple[CounterGroup, GroupReading | None]] = {}
        self._refused: dict[int, str] = {}

    def begin(self, tids: Iterable[int]) -> None:
        """Count these threads from now on, and no others."""
        self.close()
        self._refused.clear()
        wanted = list(tids)[:MOST_THREADS]
        for number, tid in enumerate(wanted):
            try:
                group = CounterGroup(tid, self._events)
            except OSError as error:
                why = why_refused(error)
                if error.errno not in OF_EACH:
                    self._refused.update(dict.fromkeys(wanted[number:], why))
                    return
                self._refused[tid] = why
            else:
                self._groups[tid] = (group, group.read())  # once all of it counts

    def end(self) -> dict[int, Counts | str]:
        """What each has done since; or why that is not known."""
        found: dict[int, Counts | str] = dict(self._refused)
        for tid, (group, then) in self._groups.items():
            now = group.read()
            grown = counted(then, now) if then is not None and now is not None else None
            if grown is not None:
                cycles, instructions, branches, misses = grown
                found[tid] = Counts(cycles=cycles, instructions=instructions, branches=branches, branch_misses=misses)
            elif then is not None and now is not None and then.enabled_ns == now.enabled_ns:
                found[tid] = DID_NOT_RUN
            else:
                found[tid] = NEVER_RAN
        self.close()
        return found

    def close(self) -> None:
        """Count no more."""
        for group, _ in self._groups.values():
            group.close()
        self._groups.clear()
