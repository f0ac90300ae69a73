"""How protection keeps running: chosen anew when packets come to other CPUs, and before others again."""

import time
from typing import Any, cast

import pytest

from napctl.kernel.own_cpu import BeforeOthers
from napctl.protect.keep_running import BusyCpus, KeptRunning
from napctl.protect.protection import Protection

ALL = frozenset({0, 1})


class Protecting:
    """A protection of which it counts where its packets come, and whether a step is made."""

    def __init__(self, *busy: int) -> None:
        self.busy_cpus: frozenset[int] | None = frozenset(busy)
        self.is_up = False

    def turn(self) -> bool:
        return True


class Before:
    allowed, is_ordinary, left = True, False, 0

    def again(self) -> bool:
        self.is_ordinary = False
        return True

    def __exit__(self, *exc: object) -> None:
        self.left += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def kept(protecting: Protecting, said: list[str], before: Before) -> KeptRunning:
    def tell(_device: str, line: str, _kind: Any = None, /) -> None:
        said.append(line)

    return KeptRunning(
        cast("Protection", protecting), tell, lambda busy: ALL - set(busy), lambda: cast("BeforeOthers", before)
    )


def test_it_moves_when_packets_come_to_other_cpus_and_is_an_ordinary_process_where_none_come(
    clock: list[float],
) -> None:
    protecting, said, before = Protecting(0, 1), list[str](), Before()
    with kept(protecting, said, before) as it:
        protecting.busy_cpus = frozenset({1})
        it.turn()
        assert len(said) == 1
        clock[0] += 1
        it.turn()
        assert before.left == 1
        protecting.busy_cpus = frozenset({0})
        it.turn()
        clock[0] += 1
        it.turn()
        it.turn()
    assert said == [
        "napctl runs before all ordinary processes (SCHED_RR), as packets come to each CPU that it may run on",
        "napctl runs on CPU 0, where none of these packets come",
        "napctl runs on CPU 1, where none of these packets come",
    ]
    assert before.left == 1


def test_what_ran_too_long_is_before_others_again_by_the_next_turn_and_says_so_once_a_minute(
    clock: list[float],
) -> None:
    said, before = list[str](), Before()
    with kept(Protecting(0, 1), said, before) as it:
        for _ in range(2):
            before.is_ordinary = True
            it.turn()
            assert not before.is_ordinary
        assert said[1:] == ["napctl ran too long without a sleep, and so as an ordinary process; now before all again"]
        clock[0] += 60
        before.is_ordinary = True
        it.turn()
        assert len(said) == 3
    assert before.left == 1


def test_steps_and_the_moment_after_them_make_no_cpus_others() -> None:
    protecting, busy = Protecting(1), BusyCpus()
    seen = cast("Protection", protecting)
    assert busy.see(seen, 0.0)
    protecting.is_up, protecting.busy_cpus = True, ALL
    assert not any(busy.see(seen, float(at)) for at in range(100))
    protecting.is_up = False
    assert not busy.see(seen, 100.0)
    protecting.busy_cpus = frozenset({1})
    assert not busy.see(seen, 100.2)
    protecting.busy_cpus = None
    assert [busy.see(seen, at) for at in (101.0, 101.9, 102.0, 102.1)] == [False, False, True, False]
    assert busy.now is None
