"""A moment in which it is measured what somebody new makes of it: what starves is not to stay attached."""

import time

from napctl.attach.activity import Meter
from napctl.attach.follow_memory import Known, key_of
from napctl.attach.follow_step import Step
from napctl.attach.inspect_target import Examination
from napctl.attach.starving import starved_changes
from napctl.model.activity import Now
from napctl.model.change import Transaction

__all__ = ["Trial", "Trials", "starved_step"]


TRIAL_SECONDS = 1.0
UNDECIDED = ("quiet", "not active", "not measured")
AGAIN_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""After one that told nothing good nor bad, as traffic was little, or has not begun to be polled."""


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
        self._undecided = 0
        """Trials, one after the other, that told nothing."""
        self._due_at = 0.0
        """When the next is, after such a one; 0: as soon as it makes sense."""

    def begin(self, transaction: Transaction, *, now: bool) -> None:
        """There is somebody new; or who is owed a trial may be due `now`."""
        self._undecided = 0
        self._begin(transaction, now=now)

    def _begin(self, transaction: Transaction, *, now: bool) -> None:
        self.end()
        self._owed = not now
        if now:
            self._trial = Trial(transaction)

    def catch_up(self, transaction: Transaction, *, polls: bool, settled: bool) -> None:
        """The one that was put off, once it makes sense; one at hand is put off when nobody is meant to poll."""
        due = self._owed and time.monotonic() >= self._due_at
        if (settled and due) or (not polls and self._trial is not None):
            self._begin(transaction, now=settled)

    def end(self) -> None:
        """If there is one."""
        self._owed, self._due_at = False, 0.0
        if self._trial is not None:
            self._trial.close()
            self._trial = None

    @property
    def until(self) -> float:
        """When the one that has begun is over, or the next is due, of time.monotonic()."""
        if self._trial is not None:
            return self._trial.until
        return self._due_at if self._owed and self._due_at else float("inf")

    def read(self) -> Now | None:
        """What was measured, if one is over. One that told nothing is made again, a few times."""
        trial = self._trial
        if trial is None or not trial.over():
            return None
        self._trial = None
        now = trial.read()
        if now.verdict in UNDECIDED and self._undecided < len(AGAIN_SECONDS):
            self._owed, self._due_at = True, time.monotonic() + AGAIN_SECONDS[self._undecided]
            self._undecided += 1
        return now


def starved_step(transaction: Transaction, found: Examination, now: Now, known: Known) -> Step:
    """What takes back what starves, which is remembered. `found`: a glance."""
    step = Step(without=list(starved_changes(transaction, found, now.starving)))
    for change in step.without:
        if (key := key_of(change)) is not None:
            known.harm(key, now.why)
    if step:
        step.say(f"detached {', '.join(change.where for change in step.without)}: {now.why}", "detach")
    return step
