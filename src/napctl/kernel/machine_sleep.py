"""Whether the machine has slept (to RAM, to disk or idle), which no timer of CLOCK_MONOTONIC notices."""

import time
from collections.abc import Callable

__all__ = ["SleepWatch", "now_boot_ns"]


LEAST_NS = 10**9
"""A shorter one changes nothing that anybody waits for."""


def now_boot_ns() -> int:
    """CLOCK_BOOTTIME, which goes on while the machine sleeps, ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class SleepWatch:
    """By two clocks, of which CLOCK_BOOTTIME goes on in sleep and CLOCK_MONOTONIC does not (clock_gettime(2)).

    Another clock that is set meanwhile says nothing. Times in ns.
    """

    def __init__(self, boot_ns: Callable[[], int] = now_boot_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns):
        self._boot_ns, self._monotonic_ns = boot_ns, monotonic_ns
        self._before = self._asleep()[1]

    def slept_ns(self) -> int:
        """For how long since this last said so; 0: it has not. Never more than it was, however late this is run."""
        least, most = self._asleep()
        if least - self._before < LEAST_NS:
            return 0
        slept, self._before = least - self._before, most
        return slept

    def _asleep(self) -> tuple[int, int]:
        """Since boot, at least and at most: whoever asks may be held up between one clock and the other."""
        first = self._monotonic_ns()
        boot = self._boot_ns()
        return boot - self._monotonic_ns(), boot - first
