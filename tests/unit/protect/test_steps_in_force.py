"""What is in force when devices go, are reset, or lose it to others: the journal is real, the settings are not."""

import errno
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from napctl.change import one_change
from napctl.change.guard import myself
from napctl.change.journal import LOCK_SECONDS, Journal
from napctl.change.transaction import begun
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Change, Transaction
from napctl.model.errors import Away, Busy, Unsupported
from napctl.model.value import Value
from napctl.protect.ladder import KINDS
from napctl.protect.steps_in_force import RolledBackByHand, StepsInForce
from tests.unit.change.keeping import OURS
from tests.unit.protect.test_protection import CONTROL, LIMITS, group, nice

Said = list[tuple[str, str]]
THREAD = nice(1)


class Kernel:
    """Settings by the object that has them, in the place of the kernel's."""

    def __init__(self) -> None:
        self.now: dict[str, Value] = {}
        self.away: set[str] = set()
        self.refused: set[str] = set()

    @contextmanager
    def opened(self, change: Change, _places: object) -> Iterator["Block | None"]:
        if change.where in self.away:
            raise Away(f"{change.where}: eth0 is down")
        yield Block(self, change) if change.where in self.now else None


class Block:
    def __init__(self, kernel: Kernel, change: Change):
        self._kernel, self._where = kernel, change.where

    def read(self) -> Value | None:
        return self._kernel.now.get(self._where)

    def write(self, values: Mapping[str, Any]) -> None:
        if self._where in self._kernel.refused:
            raise OSError(errno.EPERM, "Operation not permitted")
        self._kernel.now[self._where] = replace(self._kernel.now[self._where], **values)


class Storm:
    """In the place of StormStep."""

    def __init__(self, *attached: int, gone: Collection[int] = ()):
        self.attached, self.gone = set(attached), set(gone)

    def adopt(self, _transaction: object) -> None:
        pass

    def is_armed(self, ifindex: int) -> bool:
        return ifindex in self.attached

    def taken_away(self) -> list[int]:
        return sorted(self.attached & self.gone)

    def forget(self, ifindex: int) -> None:
        self.attached.discard(ifindex)

    def missing(self, ifindexes: Collection[int]) -> list[int]:
        return [each for each in ifindexes if each not in self.attached]

    def arm(self, _journal: object, transaction: Transaction, ifindex: int) -> tuple[Transaction, Sequence[str]]:
        self.attached.add(ifindex)
        self.gone.discard(ifindex)
        return transaction, ("it is attached",)

    def refresh(self, _journal: object, transaction: Transaction) -> tuple[Transaction, Sequence[str]]:
        return transaction, ()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """In which CONTROL, LIMITS and THREAD are made."""
    kernel = Kernel()
    kernel.now = {each.where: each.after for each in (CONTROL, LIMITS, THREAD)}
    monkeypatch.setattr(one_change, "opened", kernel.opened)
    return kernel


@pytest.fixture
def said() -> Said:
    return []


@pytest.fixture
def steps(tmp_path: Path, said: Said) -> Iterator[StepsInForce]:
    """With all three of them in force."""

    def tell(device: str, line: str, *_: object) -> None:
        said.append((device, line))

    with NetworkNamespace.current() as netns:
        steps = StepsInForce(netns, 100, OURS, tmp_path, tell, tell, entry="")
        with Journal(tmp_path) as journal:
            made = begun("protect", "eth0", (CONTROL, THREAD, LIMITS), guard=OURS, keeper=myself())
            steps.transaction = journal.update(replace(made, number=journal.begin(made)), "applied")
        yield steps


def recorded(directory: Path) -> tuple[Change, ...]:
    return tuple(change for each in Journal.read(directory, live=True) for change in each.changes)


def test_a_reset_takes_the_limits_back_too(steps: StepsInForce, kernel: Kernel, tmp_path: Path) -> None:
    assert steps.drop({2}, {2}) == ((), ("eth0",))
    assert kernel.now[LIMITS.where] == LIMITS.before
    assert recorded(tmp_path) == (CONTROL,)


def test_storm_control_of_a_device_that_left_the_namespace_is_put_back_and_what_went_with_it_forgotten(
    steps: StepsInForce, kernel: Kernel, tmp_path: Path
) -> None:
    kernel.now.pop(THREAD.where)
    assert steps.drop(set(), set()) == (("eth0",), ())
    assert (kernel.now[CONTROL.where], kernel.now[LIMITS.where]) == (CONTROL.before, LIMITS.before)
    assert recorded(tmp_path) == ()
    assert steps.transaction is None


def test_what_cannot_be_put_back_of_it_stays_in_the_journal(
    steps: StepsInForce, kernel: Kernel, tmp_path: Path, said: Said
) -> None:
    kernel.refused = {CONTROL.where}
    steps.drop(set(), set())
    assert CONTROL in recorded(tmp_path)
    assert any("not permitted" in line for _, line in said)


def test_limits_of_a_device_that_is_down_are_lifted_and_its_instances_wait(
    steps: StepsInForce, kernel: Kernel, tmp_path: Path, said: Said
) -> None:
    kernel.away = {THREAD.where}
    assert steps.put_back_strays([], {2}) == [LIMITS]
    assert kernel.now[LIMITS.where] == LIMITS.before
    assert recorded(tmp_path) == (CONTROL, THREAD)
    assert said == []


def test_what_somebody_has_taken_away_is_attached_anew(
    steps: StepsInForce, kernel: Kernel, tmp_path: Path, said: Said
) -> None:
    steps._storm = storm = Storm(2, gone={2})  # type: ignore[assignment]
    kernel.now[CONTROL.where] = CONTROL.before
    del kernel.now[LIMITS.where]
    steps.mind_storm_control([group(1, made=("threads", "nice", "storm control"))])
    assert recorded(tmp_path) == (THREAD,)
    assert (storm.attached, storm.gone) == ({2}, set())
    assert said == [("eth0", "somebody else has taken storm control away"), ("eth0", "it is attached")]


def test_after_a_rollback_nothing_more_is_attached(steps: StepsInForce, kernel: Kernel, tmp_path: Path) -> None:
    steps._storm = storm = Storm()  # type: ignore[assignment]
    assert steps.transaction is not None
    with Journal(tmp_path) as journal:
        journal.set_state(steps.transaction.number, "restored")
    with pytest.raises(RolledBackByHand):
        steps.mind_storm_control([group(3, ifindex=3)])
    assert storm.attached == set()


def test_limiting_what_is_not_attached_is_refused_in_words(tmp_path: Path, kernel: Kernel) -> None:
    with NetworkNamespace.current() as netns:
        steps = StepsInForce(netns, 100, OURS, tmp_path, lambda *_: None, lambda *_: None, entry="")
        with pytest.raises(Unsupported, match="not attached"):
            steps.make("storm control", [group(1)], lambda *_: False)


def test_another_napctl_that_changes_settings_is_not_waited_for(
    steps: StepsInForce, kernel: Kernel, tmp_path: Path
) -> None:
    began = time.monotonic()
    with Journal(tmp_path):
        with pytest.raises(Busy):
            steps.take_back([group(1)], pass_again=True)
        with pytest.raises(Busy):
            steps.put_back_strays([], {2})
    assert time.monotonic() - began < 0.9 * LOCK_SECONDS
    assert steps.take_back([group(1)], pass_again=True)
    assert recorded(tmp_path) == (CONTROL,)


def test_a_dry_run_promises_no_storm_control_where_it_is_impossible(
    steps: StepsInForce, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_netns: object, ifindex: int) -> None:
        if ifindex == 3:
            raise Unsupported("storm control of eth1: its driver has no native XDP")

    monkeypatch.setattr("napctl.protect.steps_in_force.refuse_impossible", refuse)
    able, unable = group(1), group(2, ifindex=3)
    steps.leave_out_impossible([able, unable])
    assert (able.steps, unable.steps) == (KINDS, ("threads", "nice"))
    assert said == [("eth1", "no storm control: storm control of eth1: its driver has no native XDP")]
