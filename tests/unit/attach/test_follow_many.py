"""Driving followers: each that is due gets its turn, the others wait for no more than that."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import pytest

from napctl.attach import follow_many
from napctl.attach.follow_devices import Readable
from napctl.attach.follow_many import follow, take_turns, wait_for_any
from napctl.model.change import Restored
from napctl.model.errors import NapctlError


class Pipe:
    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def fileno(self) -> int:
        return self.read

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


class Follower:
    """Is due again so long after a turn, which takes so long."""

    def __init__(self, name: str, every_s: float = 0.0, *, takes_s: float = 0.0, turns: int = 10**6):
        self.name, self.every_s, self.takes_s, self.turns_left = name, every_s, takes_s, turns
        self.pipe = Pipe()
        self.due_at = 0.0
        self.waited_s: list[float] = []
        self.took_s: list[float] = []
        """For each turn."""
        self.noticed = self.let_go_of = self.looked_anew = 0
        self.refuses = False

    def turn(self) -> bool:
        if self.due_at:
            self.waited_s.append(time.monotonic() - self.due_at)
        began = time.monotonic()
        time.sleep(self.takes_s)
        self.turns_left -= 1
        self.took_s.append(time.monotonic() - began)
        self.due_at = time.monotonic() + self.every_s
        return self.turns_left > 0

    def seconds_left(self, now: float) -> float:
        return max(0.0, self.due_at - now)

    def sources(self, now: float) -> tuple[Readable, ...]:
        return (self.pipe,)

    def look_anew(self) -> None:
        self.looked_anew += 1
        self.due_at = 0.0

    def take_notices(self) -> None:
        os.read(self.pipe.read, 100)
        self.noticed += 1
        self.due_at = time.monotonic()

    def take_restored(self) -> list[Restored]:
        return []

    def let_go(self) -> list[Restored]:
        self.let_go_of += 1
        if self.refuses:
            raise NapctlError(f"{self.name} refuses")
        return [Restored(where=self.name, setting="x", outcome="restored", before=0, found=1)]


@contextmanager
def followers(*made: Follower) -> Iterator[list[Follower]]:
    try:
        yield list(made)
    finally:
        for each in made:
            each.pipe.close()


def test_one_that_is_always_due_and_slow_lets_the_others_wait_for_one_turn_of_it() -> None:
    slow, quick = Follower("slow", takes_s=0.05), Follower("quick", 0.001)
    with followers(slow, quick) as stays:
        follow(stays, lambda: len(slow.waited_s) >= 9)
    assert median(quick.waited_s) < 2 * median(slow.took_s)
    assert abs(len(slow.waited_s) - len(quick.waited_s)) <= 1


def test_what_happens_to_one_is_told_to_it_alone_and_wakes_nobody_else() -> None:
    with followers(Follower("a", 60), Follower("b", 60)) as stays:
        assert [each.name for each, _ in take_turns(stays)] == ["a", "b"]
        os.write(stays[1].pipe.write, b"!")
        assert wait_for_any(stays) == frozenset()
        assert [each.noticed for each in stays] == [0, 1]
        assert [each.name for each, _ in take_turns(stays)] == ["b"]


def test_what_else_is_waited_for_is_named_and_a_time_ends_the_wait() -> None:
    wake = Pipe()
    with followers(Follower("a", 60)) as stays:
        list(take_turns(stays))
        began = time.monotonic()
        assert wait_for_any(stays, [wake], 0.05) == frozenset()
        assert 0.05 <= time.monotonic() - began < 50
        os.write(wake.write, b"!")
        assert wait_for_any(stays, [wake]) == {wake.read}
    wake.close()


def test_each_is_let_go_of_at_the_end_also_when_one_refuses_and_when_all_have_ended() -> None:
    with followers(Follower("a", turns=1), Follower("b", turns=3)) as stays:
        assert {each.where for each in follow(stays, lambda: False)} == {"a", "b"}
        assert [each.let_go_of for each in stays] == [1, 1]
        stays[0].refuses = True
        with pytest.raises(NapctlError, match="a refuses"):
            follow(stays, lambda: True)
        assert [each.let_go_of for each in stays] == [2, 2]


def test_of_a_target_that_comes_and_goes_for_weeks_what_is_left_to_others_is_kept_and_the_last_of_the_rest() -> None:
    class ComesAndGoes(Follower):
        def take_restored(self) -> list[Restored]:
            new = Restored(where=f"epoll {self.turns_left}", setting="x", outcome="restored", before=0, found=1)
            others = Restored(where="NAPI 8193 of eth0", setting="x", outcome="left", before=0, found=7)
            return [new, others]

        def let_go(self) -> list[Restored]:
            return []

    with followers(ComesAndGoes("a", turns=5000)) as stays:
        found = follow(stays, lambda: False)
    assert [(row.where, row.outcome) for row in found if row.outcome == "restored"] == [("epoll 0", "restored")]
    assert {row.where for row in found if row.outcome == "left"} == {"NAPI 8193 of eth0"}
    assert len(found) <= 3


def test_after_a_sleep_of_the_machine_all_are_told_to_look_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    naps = iter((0, 8 * 3600 * 10**9))

    class Slept:
        def slept_ns(self) -> int:
            return next(naps, 0)

    monkeypatch.setattr(follow_many, "SleepWatch", Slept)
    with followers(Follower("a", 0.01), Follower("b", 3600)) as stays:
        end = time.monotonic() + 60
        follow(stays, lambda: stays[1].turns_left <= 10**6 - 2 or time.monotonic() > end)
        assert [each.looked_anew for each in stays] == [1, 1]
        assert stays[1].turns_left == 10**6 - 2, "its turn came, an hour early"
