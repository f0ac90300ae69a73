"""The timer of a followed target, or its mode, where a sweep is to choose it: a step at each turn, not all at once."""

import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from napctl.attach.attach_options import AttachOptions
from napctl.attach.follow_memory import keys_of
from napctl.attach.inspect_process import Key
from napctl.attach.judge_target import JudgedTarget
from napctl.attach.mode_sweep import ROUNDS_TO_CHOOSE, mode_sweep
from napctl.attach.timer_sweep import Detached, timer_sweep
from napctl.change.journal import Journal
from napctl.model.change import Guard
from napctl.model.next_best import NextBest
from napctl.model.timer_choice import TimerChoice

__all__ = ["FollowSweep"]


MODES_AGAIN_SECONDS, TRAFFIC_AGAIN_SECONDS = 300.0, 60.0
"""After modes were tried and none was better than what is there; and after there was too little traffic."""


class FollowSweep:
    """Of one target; who drives it calls turn() when seconds_left() says so."""

    _in_this_process: ClassVar["FollowSweep | None"] = None
    """The one that is under way: what one tries would be in the windows of the other."""

    def __init__(self, options: AttachOptions, directory: Path, progress: Callable[[str], None]):
        self._options, self._directory, self._progress = options, directory, progress
        self._steps: Generator[float, None, TimerChoice] | Generator[float, None, NextBest] | None = None
        self._due_at = 0.0
        self.of: Collection[Key] = ()
        """What timers are tried on."""
        self.choice: TimerChoice | None = None
        self.next_best: NextBest | None = None
        """What has come of it, until somebody uses it."""
        self._modes_at = 0.0
        """When modes may be tried, of time.monotonic()."""

    @property
    def must_wait(self) -> bool:
        """Whether that of another target is under way in this process: then it is not to begin."""
        return FollowSweep._in_this_process not in (None, self)

    def begin(self, target: JudgedTarget, guard: Callable[[], Guard]) -> None:
        """Of timers, at the next turn(). `guard` tells who restores what is on trial by then."""
        self._begin(timer_sweep(
            lambda: Journal(self._directory), target, self._options.suspension,
            budget_ns=self._options.budget_ns, progress=self._progress, guard=guard,
        ))  # fmt: skip
        self.of = keys_of(target.choice)

    def begin_modes(self, target: JudgedTarget, guard: Callable[[], Guard], refused: Mapping[Key, str]) -> bool:
        """Of modes, if there is anything to try them on, and it is time. Whether that is so. `refused`: as of judge(),
        which is not to be tried either."""
        if self.must_wait or time.monotonic() < self._modes_at or not target.found.feeding:
            return False
        self._begin(mode_sweep(
            lambda: Journal(self._directory), target, self._options,
            rounds=ROUNDS_TO_CHOOSE, progress=self._progress, guard=guard, refused_before=refused,
        ))  # fmt: skip
        self.of = ()
        return True

    def _begin(self, steps: Generator[float, None, TimerChoice] | Generator[float, None, NextBest]) -> None:
        assert not self.must_wait
        FollowSweep._in_this_process = self
        self._steps, self._due_at = steps, time.monotonic()
        self.forget()

    @property
    def underway(self) -> bool:
        """Whether anything is being tried."""
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
            if isinstance(over.value, NextBest):
                self.next_best = over.value
                again_seconds = TRAFFIC_AGAIN_SECONDS if over.value.unmeasured else MODES_AGAIN_SECONDS
                self._modes_at = time.monotonic() + again_seconds
            else:
                self.choice = over.value
            return True
        finally:
            if self._steps is None:
                self._make_way()
        return False

    def forget(self) -> None:
        """What has come of it was used."""
        self.choice = self.next_best = None

    def end(self) -> None:
        """Put back what is on trial, if anything is, and forget what was chosen. Raises what a journal does."""
        steps, self._steps = self._steps, None
        self.forget()
        try:
            if steps is not None:
                with suppress(Detached):
                    steps.close()
        finally:
            self._make_way()

    def _make_way(self) -> None:
        if not self.must_wait:
            FollowSweep._in_this_process = None
