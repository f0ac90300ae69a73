"""When the keeper of a target is due, where what is attached could not be taken over."""

import math
import time
from pathlib import Path

from napctl.attach.objections import Objections
from napctl.model.backoff import UNATTENDED
from napctl.model.change import Guard
from napctl.model.policy import AttachEntry, Origin
from napctl.service.target_keeper import TargetKeeper

ENTRY = AttachEntry(origin=Origin(file="policy.toml", line=1), target="name:no-such-server")
WAITING = "waiting for name:no-such-server: it is not running"


def refused(directory: Path) -> tuple[TargetKeeper, list[str]]:
    """One that has tried in vain, as others may write to the directory, until somebody mended that; what it told."""
    told: list[str] = []
    guard = Guard(pid=0, started_ticks=0, deadline_boot_ns=0)
    keeper = TargetKeeper(ENTRY, guard, directory, lambda line, *_: told.append(line), Objections())
    directory.chmod(0o777)
    (directory / "journal.sqlite").touch()
    keeper.begin()
    directory.chmod(0o700)
    (directory / "journal.sqlite").unlink()
    assert len(told) == 1
    assert told[0].endswith("tried again in 1s"), told
    return keeper, told


def test_what_failed_is_due_again_after_a_while_and_at_once_when_the_machine_has_slept(tmp_path: Path) -> None:
    keeper, told = refused(tmp_path)
    assert 0 < keeper.seconds_left(time.monotonic()) <= UNATTENDED.first_seconds
    assert keeper.seconds_left(time.monotonic() + UNATTENDED.first_seconds) == 0
    keeper.look_anew()
    assert keeper.seconds_left(time.monotonic()) == 0
    keeper.turn()
    keeper.turn()
    assert told[1:] == [WAITING]


def test_what_failed_is_tried_at_once_when_somebody_asks_for_it(tmp_path: Path) -> None:
    keeper, told = refused(tmp_path)
    keeper.try_anew()
    keeper.turn()
    assert told[1:] == [WAITING]


def test_what_fails_although_somebody_asks_for_it_has_failed_for_the_first_time(tmp_path: Path) -> None:
    keeper, told = refused(tmp_path)
    tmp_path.chmod(0o777)
    (tmp_path / "journal.sqlite").touch()
    for _ in range(3):
        keeper.try_anew()
    assert [each.rsplit(" ", 1)[1] for each in told] == ["1s"] * 4


def test_what_was_detached_by_hand_is_not_due(tmp_path: Path) -> None:
    keeper, _ = refused(tmp_path)
    keeper.by_hand = True
    assert keeper.seconds_left(time.monotonic() + 1e6) == math.inf
    keeper.look_anew()
    assert keeper.seconds_left(time.monotonic()) == math.inf
    keeper.try_anew()
    assert keeper.state == "waiting"


def test_what_fails_is_tried_again_after_five_minutes_at_most(tmp_path: Path) -> None:
    keeper, _ = refused(tmp_path)
    keeper.turn()
    assert keeper._stay is not None
    pace, now, waits = keeper._stay._pace, 1000.0, []
    for _ in range(10):
        pace.failed(now)
        pace.pulsed(now, 1e9)
        waits.append(pace.seconds_left(now))
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert keeper._stay._known.pauses == UNATTENDED
