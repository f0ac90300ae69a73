"""What protection does when a look or a step fails, and what it takes back that belongs to no flood any more."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Change, ThreadChange
from napctl.model.errors import BadInput, Busy
from napctl.model.machine import Napi
from napctl.model.settings import NapiSettings, ThreadSettings
from napctl.model.storm import PASSING, StormCounts, limits_of
from napctl.model.storm_change import StormControlChange, StormLimitsChange, XdpProgram
from napctl.protect import protection as protection_module
from napctl.protect.groups import Protected
from napctl.protect.ladder import KINDS, Flood, Ladder
from napctl.protect.protect_options import ProtectOptions
from napctl.protect.protection import Protection
from napctl.protect.steps_in_force import strays
from tests.unit.change.keeping import OURS

CONTROL = StormControlChange(
    netns=1, device="eth0", ifindex=2, before=XdpProgram(xdp_program=0), after=XdpProgram(xdp_program=7)
)
LIMITS = StormLimitsChange(
    netns=1, device="eth0", ifindex=2, program=7, before=PASSING, after=limits_of(100)
)  # fmt: skip


def napi(number: int, ifindex: int = 2) -> Napi:
    return Napi(napi_id=number, ifindex=ifindex, irq=None, cpus="0", settings=NapiSettings(threaded="disabled"))


def group(*numbers: int, ifindex: int = 2, made: Sequence[Any] = ()) -> Protected:
    napis = tuple(napi(each, ifindex) for each in numbers)
    name = f"eth{ifindex - 2}"
    return Protected(name, ifindex, napis, frozenset({0}), ladder=Ladder(made=tuple(made)))


def nice(napi_id: int, ifindex: int = 2, *, whole: bool = False) -> ThreadChange:
    return ThreadChange(
        netns=1, device=f"eth{ifindex - 2}", ifindex=ifindex, napi_id=napi_id, whole_device=whole,
        before=ThreadSettings(nice=0), after=ThreadSettings(nice=19),
    )  # fmt: skip


class Steps:
    """In the place of StepsInForce: remembers what it is asked to make."""

    def __init__(self, *_arguments: object, **_more: object) -> None:
        self.transaction = None
        self.changes: tuple[Change, ...] = ()
        self.armed: frozenset[int] = frozenset()
        self.limited: frozenset[int] = frozenset()
        self.made: list[tuple[str, str]] = []
        self.taken_back: list[tuple[str, tuple[str, ...], bool]] = []
        self.fails: frozenset[str] = frozenset()
        self.busy = self.judged_by_old_rules = False

    def check(self) -> None:
        pass

    def is_judged_by_old_rules(self) -> bool:
        return self.judged_by_old_rules

    def storm_counts(self) -> dict[int, StormCounts]:
        return {}

    def possible(self, group: Protected) -> Sequence[str]:
        return [each for each in group.steps if each != "storm control" or group.ifindex in self.armed]

    def is_limited(self, ifindex: int) -> bool:
        return ifindex in self.limited

    def mind_storm_control(self, _groups: object) -> None:
        pass

    def make(self, step: str, groups: Sequence[Protected], _left_out: object) -> tuple[Change, ...]:
        if self.busy:
            raise Busy("another napctl is changing settings; try again")
        if groups[0].device in self.fails:
            raise OSError(5, "Input/output error")
        self.made.append((groups[0].device, step))
        return (nice(groups[0].napis[0].napi_id, groups[0].ifindex),)

    def take_back(self, groups: Sequence[Protected], steps: Sequence[str], *, pass_again: bool) -> bool:
        self.taken_back.append((groups[0].device, tuple(steps), pass_again))
        return True


class Reader:
    """In the place of FloodReader: all of it is flooded."""

    starved = ""
    foreign: frozenset[int] = frozenset()

    def __init__(self, *_arguments: object) -> None:
        pass

    def read(self, groups: Sequence[Protected], _limited: object) -> list[Flood]:
        return [Flood(offered_per_second=1e6, overload="CPU 0 is taken", starved=self.starved) for _ in groups]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A protection without a kernel, its steps, what it said, and its clock."""
    monkeypatch.setattr(protection_module, "StepsInForce", Steps)
    monkeypatch.setattr(protection_module, "FloodReader", Reader)
    said: list[tuple[str, str]] = []
    now = [100.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    with NetworkNamespace.current() as netns:
        one = Protection(
            netns, ProtectOptions(), OURS, tmp_path, lambda device, line, *_: said.append((device, line)), clock=clock
        )
        return SimpleNamespace(protection=one, steps=one._steps, said=said, now=now)


def test_a_look_that_fails_keeps_no_step_from_being_made(
    built: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_self: Protection) -> None:
        raise BadInput("storm control of eth0: gone")

    monkeypatch.setattr(Protection, "look_for_devices", fails)
    built.protection.groups = [group(1)]
    for _ in range(40):
        assert built.protection.turn()
        built.now[0] += 0.25
    assert built.steps.made == [("eth0", "threads"), ("eth0", "nice")]
    assert [line for _, line in built.said].count("storm control of eth0: gone") <= 3


def test_a_step_that_fails_keeps_no_other_device_from_its_own(built: SimpleNamespace) -> None:
    built.protection._look_at = 1e9
    built.steps.fails = frozenset({"eth0"})
    built.protection.groups = [group(1), group(2, ifindex=3)]
    built.protection.turn()
    assert built.steps.made == [("eth1", "threads")]
    assert ("eth0", "[Errno 5] Input/output error") in built.said


def test_a_step_that_another_napctl_keeps_from_being_made_is_made_at_the_next_window(built: SimpleNamespace) -> None:
    built.protection._look_at = 1e9
    built.protection.groups = [group(1)]
    built.steps.busy = True
    built.protection.turn()
    built.steps.busy = False
    built.now[0] += 0.25
    built.protection.turn()
    assert built.steps.made == [("eth0", "threads")]


@pytest.mark.parametrize("old", [False, True])
def test_rules_that_change_in_the_storm_cause_a_look(old: bool, built: SimpleNamespace) -> None:
    built.protection._look_at = 1e9
    built.steps.transaction = object()
    built.steps.judged_by_old_rules = old
    built.protection.turn()
    assert (built.protection._look_at == built.now[0]) is old


def test_a_cpu_that_is_overloaded_by_none_of_them_causes_one_look_as_interrupts_may_have_moved(
    built: SimpleNamespace,
) -> None:
    built.protection._look_at = 1e9
    built.protection._reader.foreign = frozenset({1})
    built.protection.turn()
    assert built.protection._look_at == built.now[0] + 0.2
    built.protection._look_at = 1e9
    built.now[0] += 0.25
    built.protection.turn()
    assert built.protection._look_at == 1e9


def test_storm_control_is_no_step_before_it_is_attached(built: SimpleNamespace) -> None:
    built.protection._look_at = 1e9
    built.protection.groups = [group(1, made=("threads", "nice"))]
    built.protection.turn()
    assert built.steps.made == []
    built.steps.armed = frozenset({2})
    built.now[0] += 1
    built.protection.turn()
    assert built.steps.made == [("eth0", "storm control")]


def test_what_starves_is_put_back_alone_and_one_that_would_is_left_out_once_with_its_reason(
    built: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Protection, "_look", lambda _self: None)
    built.protection._reader.starved = "stress (77) never waits"
    built.steps.armed = frozenset({2})
    built.protection.groups = [group(1, made=KINDS), group(2, ifindex=3, made=("threads",))]
    for _ in range(120):
        built.protection.turn()
        built.now[0] += 0.25
    assert [each.ladder.made for each in built.protection.groups] == [("threads", "storm control"), ("threads",)]
    assert (built.steps.taken_back, built.steps.made) == ([("eth0", ("nice",), True)], [])
    assert [line for _, line in built.said] == [
        "overload, and nice put back, not to be made again for 10 minutes: stress (77) never waits",
        "overload, and nice is left out: stress (77) never waits",
    ]


def test_limits_that_went_with_their_program_are_to_be_made_anew(built: SimpleNamespace) -> None:
    built.steps.limited = frozenset({3})
    built.protection.groups = [group(1, made=KINDS), group(2, ifindex=3, made=KINDS)]
    built.protection.mind_storm_control()
    assert [each.ladder.made for each in built.protection.groups] == [("threads", "nice"), KINDS]


def test_what_is_of_no_group_with_steps_made_is_a_stray() -> None:
    flooded = group(1, made=KINDS)
    assert strays([CONTROL, nice(1), LIMITS], [flooded], {2}) == []
    # its other instance was made anew meanwhile; the device has gone down; nothing is made of it
    assert strays([CONTROL, nice(1), nice(2), LIMITS], [flooded], {2}) == [nice(2)]
    assert strays([CONTROL, nice(1), LIMITS], [], {2}) == [nice(1), LIMITS]
    assert strays([CONTROL, nice(1), LIMITS], [group(1)], {2}) == [nice(1), LIMITS]
    # it is no longer named, or storm control is no longer allowed
    assert strays([CONTROL, nice(1), LIMITS], [], set()) == [CONTROL, nice(1), LIMITS]
    assert strays([CONTROL, nice(1), LIMITS], [flooded], set()) == [CONTROL, LIMITS]


def test_a_switch_of_the_whole_device_is_put_back_with_all_that_stood_on_it() -> None:
    first, second = nice(1, whole=True), replace(nice(2, whole=True), after=ThreadSettings(threaded="enabled"))
    assert strays([first, second, nice(9, 3)], [group(1, made=KINDS), group(9, ifindex=3, made=KINDS)], {2, 3}) == [
        first, second,
    ]  # fmt: skip
