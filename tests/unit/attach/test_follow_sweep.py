"""Sweeps of several targets in one process, and the journal after one that failed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from napctl.attach import follow_sweep, timer_sweep
from napctl.attach.follow_sweep import FollowSweep
from napctl.attach.timer_sweep import Detached, choose_timer
from napctl.change.journal import Journal
from napctl.model.change import Guard
from napctl.model.errors import NapctlError
from napctl.model.policy import AttachEntry, Origin
from napctl.model.suspension import Suspension
from napctl.model.timer_choice import TimerChoice
from napctl.service.policy_keys import attach_options_of
from tests.unit.attach.targets import examination, instance, judged

TARGET = judged(examination(instance(5, {300: 1})))
GUARD = Guard(pid=0, started_ticks=0, deadline_boot_ns=0)
CHOICE = TimerChoice(gro_flush_timeout_ns=20_000, why="")


def two(monkeypatch: pytest.MonkeyPatch, directory: Path, steps: Callable[..., Iterator[float]]) -> list[FollowSweep]:
    monkeypatch.setattr(follow_sweep, "timer_sweep", steps)
    options = attach_options_of(AttachEntry(origin=Origin(file="", line=1), target="nginx"))
    return [FollowSweep(options, directory, lambda _: None) for _ in range(2)]


def test_one_waits_for_the_other_until_that_is_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def steps(*_: object, **__: object) -> Any:
        yield 0.0
        return CHOICE

    one, other = two(monkeypatch, tmp_path, steps)
    one.begin(TARGET, lambda: GUARD)
    assert (one.must_wait, other.must_wait) == (False, True)
    assert not one.turn()
    assert other.must_wait
    other.end()
    assert other.must_wait, "what it ends is not its own"
    assert one.turn()
    assert (one.choice, other.must_wait) == (CHOICE, False)
    other.begin(TARGET, lambda: GUARD)
    assert one.must_wait
    other.turn()
    other.end()
    assert not one.must_wait


@pytest.mark.parametrize("at", ["turn", "end"])
def test_one_that_fails_keeps_nobody_waiting(at: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def steps(*_: object, **__: object) -> Iterator[float]:
        try:
            yield 0.0
            raise NapctlError("the disk is full")
        except GeneratorExit:
            raise NapctlError("the disk is full") from None

    one, other = two(monkeypatch, tmp_path, steps)
    one.begin(TARGET, lambda: GUARD)
    one.turn()
    with pytest.raises(NapctlError):
        one.turn() if at == "turn" else one.end()
    assert not other.must_wait


def test_the_journal_is_taken_again_also_after_a_sweep_whose_trial_could_not_be_put_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def steps(*_: object, **__: object) -> Iterator[float]:
        try:
            yield 0.0
        finally:
            raise Detached("somebody else has detached it")

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(timer_sweep, "timer_sweep", steps)
    monkeypatch.setattr(time, "sleep", interrupted)
    with Journal(tmp_path) as journal:
        with pytest.raises(Detached):
            choose_timer(journal, TARGET, Suspension(), budget_ns=None, progress=lambda _: None)
        with pytest.raises(NapctlError):
            Journal(tmp_path, patience_seconds=0)
    Journal(tmp_path, patience_seconds=0).__exit__(None, None, None)
