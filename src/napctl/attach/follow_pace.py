"""When --stay looks: often and cheaply, rarely and deeply, and by how much of a CPU. No clock of its own."""

from napctl.model.backoff import AT_A_TERMINAL, Pauses

__all__ = [
    "APART_SECONDS",
    "ATTACHED_SECONDS",
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
ATTACHED_SECONDS = 30.0
"""After errors, at most, where something is attached: it is not mended, nor taken back if it starves, for so long."""


class Pace:
    """Times are those of one clock, such as time.monotonic(), in s. After errors it waits so long."""

    def __init__(self, pauses: Pauses = AT_A_TERMINAL) -> None:
        self._pauses, self._pause = pauses, 0.0
        """After an error; the last one, s."""
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
        """No look until then. What was wanted still is."""
        self._not_before = moment

    def failed(self, now: float, *, attached: bool = False) -> None:
        """It went wrong, perhaps once more. It counts as a look, which it may have been: what happens meanwhile lets it
        be tried at once, and may happen all the time. `attached`: nobody minds what is attached already meanwhile."""
        most_seconds = min(self._pauses.most_seconds, ATTACHED_SECONDS) if attached else self._pauses.most_seconds
        self._left, self._counted_at = max(0.0, self._left_at(now) - 1), now
        self._pause = self._pauses._replace(most_seconds=most_seconds).after(self._pause)
        self.put_off(now + self._pause)
        self._look_at = max(self._look_at, self._not_before)

    def went_well(self) -> None:
        """The next error is the first one again, unless a look is still to come, which may go wrong as before."""
        if self._wanted is None:
            self._pause = 0.0

    @property
    def in_trouble(self) -> bool:
        """Whether it went wrong, and did not go well since."""
        return bool(self._pause)

    def go_on(self, now: float) -> None:
        """Something has happened that may have mended what went wrong: whatever was put off is not any more. The next
        error is the first one again, unless such things happen all the time."""
        if self._left_at(now) >= KEPT_FOR_OTHERS:
            self._pause = 0.0
        self._not_before = min(self._not_before, now)
        self.want(now)

    def look_anew(self, now: float) -> None:
        """Everything may be otherwise: look at once, whatever was put off, and however often it was looked of late."""
        self._counted_at = now
        self._left = float(MOST_A_MINUTE)
        self.go_on(now)
        self._look_at = min(self._look_at, now)

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

    def is_pulse_due(self, now: float) -> bool:
        """Whether to check cheaply; also while a look is put off."""
        return now >= self._pulse_at

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
        look_at = self._not_before if self.is_put_off(now) else self._next_look()
        return max(0.0, min(self._pulse_at, look_at) - now)

    def _next_look(self) -> float:
        if self._wanted is None:
            return self._look_at
        needed = 1 + (KEPT_FOR_OTHERS if self._only_churn else 0)
        enough_at = self._counted_at + max(0.0, needed - self._left) * MINUTE / MOST_A_MINUTE
        return min(self._look_at, max(self._wanted + SETTLE_SECONDS, self._looked_at + APART_SECONDS, enough_at))

    def _left_at(self, now: float) -> float:
        return min(float(MOST_A_MINUTE), self._left + (now - self._counted_at) * MOST_A_MINUTE / MINUTE)
