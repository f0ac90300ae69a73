"""When a follower's next turn does something: after errors, and while timers are tried."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from napctl.attach import follow_sweep
from napctl.attach.follow import Stay
from napctl.attach.follow_pace import ATTACHED_SECONDS
from napctl.attach.target import parse
from napctl.model.backoff import UNATTENDED
from napctl.model.change import Guard
from napctl.model.errors import NapctlError
from napctl.model.policy import AttachEntry, Origin
from napctl.service.policy_keys import attach_options_of
from tests.unit.attach import steps
from tests.unit.attach.targets import examination, instance, judged

FOUND = examination(instance(5, {300: 1}))
GUARD = Guard(pid=0, started_ticks=0, deadline_boot_ns=0)


@pytest.fixture
def stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stay:
    """Nothing changes about its processes."""
    options = attach_options_of(AttachEntry(origin=Origin(file="", line=1), target="nginx"))
    stay = Stay(parse("nginx"), options, GUARD, tmp_path, lambda *_: None, pauses=UNATTENDED)
    monkeypatch.setattr(stay._processes, "check", lambda: False)
    return stay


@pytest.mark.parametrize(
    ("is_attached", "most_seconds"),
    [(True, ATTACHED_SECONDS), (False, UNATTENDED.most_seconds)],
    ids=["attached", "waiting"],
)
def test_after_errors_it_tries_again_within_30_s_where_something_is_attached(
    is_attached: bool, most_seconds: float, stay: Stay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which nobody mends meanwhile, nor takes back if it starves."""
    now, tried = 1000.0, list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def fails() -> bool:
        tried.append(now)
        raise NapctlError("the disk is full")

    monkeypatch.setattr(stay, "_check", fails)
    if is_attached:
        stay._attachment.current = steps.attached(FOUND)
    while now < 3000:
        assert stay.turn()
        now += 1.0
    pauses = [after - before for before, after in pairwise(tried)]
    assert max(pauses) == pytest.approx(most_seconds, abs=1)


def test_a_sweep_that_is_under_way_is_stepped_whatever_is_put_off(stay: Stay, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on trial is attached: nobody else takes it back in time."""
    stepped = list[int]()

    def sweep(*_: object, **__: object) -> Iterator[float]:
        for number in range(9):
            stepped.append(number)
            yield 0.0

    monkeypatch.setattr(follow_sweep, "timer_sweep", sweep)
    stay._sweep.begin(judged(FOUND), lambda: GUARD)
    try:
        stay._pace.put_off(time.monotonic() + 3600)
        for number in range(3):
            assert stay.seconds_left(time.monotonic()) == 0
            assert stay.turn()
            assert stepped == [*range(number + 1)]
    finally:
        stay._sweep.end()
