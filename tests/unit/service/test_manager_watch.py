"""Other managers in words: each once, when it comes, goes, or touches something else."""

from pathlib import Path

from msgspec.structs import replace

from napctl.kernel.cgroups import Hierarchy
from napctl.model.change import CoalescingChange, RingsChange
from napctl.model.machine import Coalescing
from napctl.model.other_manager import Held, OtherManager, Touch, held_by, touched
from napctl.model.plan import RingSizes
from napctl.service.manager_watch import changes_in_words, running_units

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
