"""When --stay looks: often and cheaply, rarely and deeply, and by how much of a CPU. No clock of its own."""

__all__ = [
    "APART_SECONDS",
    "KEPT_FOR_OTHERS",
    "LOOK_SECONDS",
    "LOOK_SHARE",
    "MINUTE",
    "MOST_A_MINUTE",
    "PULSE_SECONDS",
    "PULSE_SHARE",
    "SETTLE_SECONDS",
    "Pace",
]


PULSE_SECONDS = 1.0
"""Between two cheap checks."""
LOOK_SECONDS = 30.0
"""Between two deep looks at a target about which nothing changes."""
PULSE_SHARE = 0.003
"""Of one CPU that the cheap checks take at most."""
LOOK_SHARE = 0.0005
"""Of one CPU that looks take at most for which there is no cause but the time."""
SETTLE_SECONDS = 0.2
"""Between a change and the look at it: a master starts one worker after the other, and one look is to see them all."""
APART_SECONDS = 0.5
MOST_A_MINUTE = 6
"""Looks because something has changed, on average and as many at a time."""
KEPT_FOR_OTHERS = 3
"""Of them, where only settled processes opened or closed something, mostly connections."""
MINUTE = 60.0


class Pace:
    """Times are those of one clock, such as time.monotonic(), in s."""

    def __init__(self) -> None:
        self._left = float(MOST_A_MINUTE)
        """Looks because of a change that may be made at `_counted_at`; each 10 s there is one more."""
        self._counted_at = 0.0
        self._looked_at = float("-inf")
        self._look_at = 0.0
        self._pulse_at = 0.0
        self._wanted: float | None = None
        """Since when there is something to be looked at that no look has seen yet."""
        self._only_churn = False
        self._not_before = 0.0

    def put_off(self, moment: float) -> None:
        """Neither check nor look until then: it went wrong. What was wanted still is."""
        self._not_before = moment

    def is_put_off(self, now: float) -> bool:
        """Whether that time has not come."""
        return now < self._not_before

    def want(self, now: float, *, churn: bool = False) -> None:
        """Something has changed. `churn`: only settled processes have opened or closed something."""
        self._only_churn = churn and (self._wanted is None or self._only_churn)
        if self._wanted is None:
            self._wanted = now

    def again_at(self, moment: float) -> None:
        """Look at that time at the latest."""
        self._look_at = min(self._look_at, moment)

    def pulse_by(self, moment: float) -> None:
        """Check at that time at the latest."""
        self._pulse_at = min(self._pulse_at, moment)

    def pulsed(self, now: float, took_seconds: float) -> None:
        """A cheap check, which took so much CPU time, is over."""
        self._pulse_at = now + max(PULSE_SECONDS, took_seconds / PULSE_SHARE)

    def looked(self, now: float, took_seconds: float) -> None:
        """A deep look, which took so much CPU time, is over: the longer it took, the later the next without a cause."""
        self._left = self._left_at(now)
        self._counted_at = now
        if self._wanted is not None:
            self._left -= 1
        self._wanted = None
        self._looked_at = now
        self._look_at = now + max(LOOK_SECONDS, took_seconds / LOOK_SHARE)

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for the next look: a worker that has got its first connection, say."""
        return self._wanted is not None and not self._only_churn

    def due(self, now: float) -> bool:
        """Whether to look deeply."""
        return now >= self._next_look()

    def seconds_left(self, now: float) -> float:
        """Until the next check or look; 0 if it is time."""
        return max(0.0, max(self._not_before, min(self._pulse_at, self._next_look())) - now)

    def _next_look(self) -> float:
        if self._wanted is None:
            return self._look_at
        needed = 1 + (KEPT_FOR_OTHERS if self._only_churn else 0)
        enough_at = self._counted_at + max(0.0, needed - self._left) * MINUTE / MOST_A_MINUTE
        return min(self._look_at, max(self._wanted + SETTLE_SECONDS, self._looked_at + APART_SECONDS, enough_at))

    def _left_at(self, now: float) -> float:
        return min(float(MOST_A_MINUTE), self._left + (now - self._counted_at) * MOST_A_MINUTE / MINUTE)
