"""A moment in which it is measured what somebody new makes of it: what starves is not to stay attached."""

import time

from napctl.attach.activity import Meter
from napctl.model.activity import Now
from napctl.model.change import Transaction

__all__ = ["Trial", "Trials"]


TRIAL_SECONDS = 1.0


class Trial:
    """From now on. Whoever begins it ends it, by read() or close()."""

    def __init__(self, transaction: Transaction):
        self._meter = Meter([transaction], latency=False).__enter__()  # in a hurry: the journal is locked
        self.until = time.monotonic() + TRIAL_SECONDS

    def over(self) -> bool:
        """Whether there is enough to read."""
        return time.monotonic() >= self.until

    def read(self) -> Now:
        """What was measured, and the end of it."""
        try:
            ((now, _window),) = self._meter.read()
            return now
        finally:
            self.close()

    def close(self) -> None:
        """The end of it."""
        self._meter.__exit__(None, None, None)


class Trials:
    """At most one at a time; put off while nobody is meant to poll."""

    def __init__(self) -> None:
        self._trial: Trial | None = None
        self._owed = False
        """Somebody new has not yet been seen to poll."""

    def begin(self, transaction: Transaction, *, now: bool) -> None:
        """There is somebody new; or who is owed a trial may be due `now`."""
        self.end()
        self._owed = not now
        if now:
            self._trial = Trial(transaction)

    def catch_up(self, transaction: Transaction, *, polls: bool, settled: bool) -> None:
        """The one that was put off, once it makes sense; one at hand is put off when nobody is meant to poll."""
        if (settled and self._owed) or (not polls and self._trial is not None):
            self.begin(transaction, now=settled)

    def end(self) -> None:
        """If there is one."""
        self._owed = False
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    @property
    def until(self) -> float:
        """When the one that has begun is over, of time.monotonic()."""
        return self._trial.until if self._trial else float("inf")

    def read(self) -> Now | None:
        """What was measured, if one is over."""
        trial = self._trial
        if trial is None or not trial.over():
            return None
        self._trial = None
        return trial.read()
