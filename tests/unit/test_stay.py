"""How often a target that is followed is looked at, and how long. Without a kernel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.targets import examination, instance
from tests.unit.test_following import attached, examined

from napctl.attach import stay
from napctl.attach.examine import Examination
from napctl.attach.operate import Examined, Wish
from napctl.attach.stay import SHARE, Stay, pause_after
from napctl.attach.target import Target
from napctl.model.change import Guard
from napctl.model.suspension import Suspension

WANTED = Suspension()


@given(st.floats(0, 1000))
def test_looking_takes_no_more_than_its_share_of_the_time_however_long_a_look_is(took_seconds: float) -> None:
    assert took_seconds <= SHARE * (took_seconds + pause_after(took_seconds)) * (1 + 1e-9)


def seconds_looked(
    first: Examination, later: Examination, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[float]:
    """How long each look at how threads wait took, of four looks at a target that is attached as `first` was."""
    looks: list[float] = []

    def look(_name: str, _found: Sequence[object], _wish: Wish, *, watch_seconds: float = 0.25, **_: Any) -> Examined:
        looks.append(watch_seconds)
        return examined(later)

    monkeypatch.setattr(stay, "look", look)
    guard = Guard(pid=1, started_ticks=1, deadline_boot_ns=0)
    it = Stay(Target("42", "pid", "42"), Wish(WANTED), guard, tmp_path, lambda _line: None)
    for _ in range(4):
        it._look(attached(first))
    return [seconds for seconds in looks if seconds]


def test_an_attached_instance_is_only_glanced_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before, now = examination(instance(5, {300: 20})), examination(instance(5, {300: 20}, WANTED.epoll))
    assert seconds_looked(before, now, monkeypatch, tmp_path) == []


def test_an_instance_that_its_program_has_set_itself_is_looked_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = examination(instance(5, {300: 20}, WANTED.epoll))
    assert len(seconds_looked(own, own, monkeypatch, tmp_path)) == 1


def test_an_instance_whose_first_holder_has_gone_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = instance(6, {300: 20}, pid=41, also=((42, 5),))
    both, alone = examination(shared, instance(9, pid=42)), examination(instance(5, {300: 20}, WANTED.epoll))
    assert seconds_looked(both, alone, monkeypatch, tmp_path) == []
