"""Other managers in words: each once, when it comes, goes, or touches something else."""

from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from napctl.kernel.cgroups import Hierarchy
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import CoalescingChange, RingsChange
from napctl.model.machine import Coalescing
from napctl.model.other_manager import Held, OtherManager, Touch, held_by, touched
from napctl.model.plan import RingSizes
from napctl.service import manager_watch
from napctl.service.manager_watch import LOOK_SECONDS, ManagerWatch, changes_in_words, running_units

BALANCE = OtherManager(
    name="irqbalance", pid=7, how="as the load of the CPUs changes", touches=(Touch(what="interrupt affinity"),)
)
TUNED = OtherManager(
    name="tuned",
    pid=8,
    how="when its profile is applied",
    touches=(
        Touch(what="coalescing", devices=("*",), source="/a"),
        Touch(what="rings", devices=("eth0", "ens*"), source="/a"),
    ),
)
QUIET = OtherManager(name="systemd-networkd", pid=9)


def told(before: tuple[OtherManager, ...], now: tuple[OtherManager, ...]) -> list[str]:
    return list(changes_in_words(before, now))


def test_each_is_told_once_with_what_it_touches_and_where_that_is_written() -> None:
    assert told((), (BALANCE, TUNED, QUIET)) == [
        "irqbalance (7) runs too: it sets interrupt affinity as the load of the CPUs changes",
        "tuned (8) runs too: it sets coalescing and rings of eth0 and ens* when its profile is applied (/a)",
        "systemd-networkd (9) runs too: it touches nothing that napctl sets",
    ]
    assert told((BALANCE, TUNED), (replace(BALANCE, pid=70), TUNED)) == [], "another process of it says nothing new"


def test_one_that_goes_or_is_configured_otherwise_is_told() -> None:
    assert told((BALANCE,), ()) == ["irqbalance has ended, or touches nothing any more"]
    (line,) = told((TUNED,), (replace(TUNED, touches=()),))
    assert line == "tuned (8) is configured otherwise now: it touches nothing that napctl sets"


def test_of_many_files_some_are_named() -> None:
    touches = tuple(Touch(what="rings", source=f"/{each}") for each in range(5))
    (line,) = told((), (replace(TUNED, touches=touches),))
    assert line.endswith("(/0, /1, /2 and 2 more)")


def test_a_unit_that_runs_has_a_control_group(tmp_path: Path) -> None:
    (tmp_path / "system.slice/irqbalance.service").mkdir(parents=True)
    (tmp_path / "system.slice/cron.service").mkdir()
    assert running_units(Hierarchy(tmp_path, "/")) == {"irqbalance.service"}
    assert running_units(Hierarchy(tmp_path, "/kubepods")) == running_units(None) == set()


def coalescing(device: str, netns: int = 1) -> CoalescingChange:
    return CoalescingChange(netns=netns, device=device, ifindex=2, before=Coalescing(), after=Coalescing(rx_usecs=5))


def test_what_is_held_is_what_was_set_here_each_kind_once() -> None:
    rings = RingsChange(netns=1, device="eth1", ifindex=3, before=RingSizes(), after=RingSizes(rx=8))
    changes = (coalescing("eth0"), coalescing("eth0"), coalescing("eth9", netns=2), rings)
    assert held_by(changes, 1) == (Held(what="coalescing", device="eth0"), Held(what="rings", device="eth1"))


def test_what_both_set_is_found_by_kind_and_name() -> None:
    held = tuple(Held(what="rings", device=each) for each in ("eth0", "ens3", "eth1"))
    assert [each.device for each, _ in touched(TUNED, held)] == ["eth0", "ens3"]
    assert [each.device for each, _ in touched(TUNED, (Held(what="coalescing", device="eth1"),))] == ["eth1"]
    assert touched(BALANCE, held) == ()
    unknown = replace(TUNED, touches=(Touch(what="rings"),))
    assert len(touched(unknown, held)) == 3, "which devices it means is not known: any may be"


ONE, NONE = frozenset({"tuned.service"}), frozenset[str]()


def looks(
    monkeypatch: pytest.MonkeyPatch, units: Callable[[int], frozenset[str]], seconds: int, *, cost_s: float = 0
) -> list[int]:
    """When all processes are looked at, where `units` tells those that run at each second."""
    clock, found, used = [0], list[int](), count(0.0, cost_s)
    its_time = SimpleNamespace(monotonic=lambda: float(clock[0]), process_time=lambda: next(used))

    def look(_netns: NetworkNamespace) -> tuple[OtherManager, ...]:
        found.append(clock[0])
        return ()

    monkeypatch.setattr(manager_watch, "time", its_time)
    monkeypatch.setattr(manager_watch, "running_units", lambda _groups: units(clock[0]))
    monkeypatch.setattr(manager_watch, "other_managers", look)
    with NetworkNamespace.current() as netns:
        watch = ManagerWatch(netns, lambda _line: None)
        for clock[0] in range(seconds):
            watch.look_if_due()
    return found


def test_a_unit_that_comes_brings_a_look_once_its_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks(monkeypatch, lambda now: ONE if now >= 25 else NONE, 130) == [0, 40, 100]


def test_a_unit_that_is_restarted_again_and_again_brings_no_more_looks_than_time_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = looks(monkeypatch, lambda now: ONE if now // 10 % 2 else NONE, 3600)
    assert min(then - now for now, then in pairwise(at[1:])) >= LOOK_SECONDS


def test_what_changes_soon_after_such_a_look_is_seen_when_there_may_be_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though looking at all takes so long that time alone brings none for an hour."""
    at = looks(monkeypatch, lambda now: ONE if 25 <= now < 45 else NONE, 600, cost_s=2)
    assert at == [0, 40, 100]
