"""The timer of a followed target, where a sweep is to choose it: a step at each turn, and not all at once."""

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from napctl.attach.attach_options import AttachOptions
from napctl.attach.follow_memory import keys_of
from napctl.attach.inspect_process import Key
from napctl.attach.judge_target import JudgedTarget
from napctl.attach.timer_sweep import Detached, Sweep, timer_sweep
from napctl.change.journal import Journal
from napctl.model.change import Guard
from napctl.model.timer_choice import TimerChoice

__all__ = ["FollowSweep"]


class FollowSweep:
    """Of one target; who drives it calls turn() when seconds_left() says so."""

    _in_this_process: ClassVar["FollowSweep | None"] = None
    """The one that is under way: what one tries would be in the windows of the other."""

    def __init__(self, options: AttachOptions, directory: Path, progress: Callable[[str], None]):
        self._options, self._directory, self._progress = options, directory, progress
        self._steps: Sweep | None = None
        self._due_at = 0.0
        self.of: Collection[Key] = ()
        """What timers are tried on."""
        self.choice: TimerChoice | None = None
        """What has come of it, until somebody uses it."""

    @property
    def must_wait(self) -> bool:
        """Whether that of another target is under way in this process: then it is not to begin."""
        return FollowSweep._in_this_process not in (None, self)

    def begin(self, target: JudgedTarget, guard: Callable[[], Guard]) -> None:
        """At the next turn(). `guard` tells who restores what is on trial by then."""
        assert not self.must_wait
        FollowSweep._in_this_process = self
        self._steps = timer_sweep(
            lambda: Journal(self._directory), target, self._options.suspension,
            budget_ns=self._options.budget_ns, progress=self._progress, guard=guard,
        )  # fmt: skip
        self._due_at, self.choice = time.monotonic(), None
        self.of = keys_of(target.choice)

    @property
    def underway(self) -> bool:
        """Whether timers are being tried."""
        return self._steps is not None

    def seconds_left(self, now: float) -> float:
        """Until turn() is due, of time.monotonic()."""
        return max(0.0, self._due_at - now) if self._steps is not None else float("inf")

    def turn(self) -> bool:
        """The next step, if it is time. Whether that was the last one. Raises what timer_sweep() does: then it is over,
        and nothing was chosen."""
        if self._steps is None or self.seconds_left(time.monotonic()):
            return False
        steps, self._steps = self._steps, None
        try:
            wait_seconds = next(steps)
            self._steps, self._due_at = steps, time.monotonic() + wait_seconds
        except StopIteration as over:
            self.choice = over.value
            return True
        finally:
            if self._steps is None:
                self._make_way()
        return False

    def end(self) -> None:
        """Put back what is on trial, if anything is, and forget what was chosen. Raises what a journal does."""
        steps, self._steps, self.choice = self._steps, None, None
        try:
            if steps is not None:
                with suppress(Detached):
                    steps.close()
        finally:
            self._make_way()

    def _make_way(self) -> None:
        if not self.must_wait:
            FollowSweep._in_this_process = None
