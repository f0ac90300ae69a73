"""What undoing storm control takes from others by a reset is set again; journal real, settings and instances not."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from napctl.change import after_reset, one_change
from napctl.change.after_reset import set_again, set_again_after
from napctl.change.journal import Journal
from napctl.change.recovery import recover
from napctl.change.transaction import begun
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Change, Keeper, ThreadChange, Transaction
from napctl.model.machine import Napi
from napctl.model.settings import NapiSettings, ThreadSettings
from napctl.model.storm_change import StormControlChange, XdpProgram
from napctl.model.value import Value
from tests.unit.change.keeping import dead

NEW = ThreadSettings(threaded="disabled", nice=0, cpus="0-1")
RESILIENT = ThreadSettings(threaded="enabled", nice=19, cpus="1")
Threads = dict[int, ThreadSettings]


def napi(number: int, threaded: str) -> Napi:
    return Napi(napi_id=number, ifindex=2, irq=None, cpus="0", settings=NapiSettings(threaded=threaded))


def storm_control(inode: int) -> StormControlChange:
    return StormControlChange(
        netns=inode, device="eth0", ifindex=2, before=XdpProgram(xdp_program=0), after=XdpProgram(xdp_program=7)
    )


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """Of each NAPI instance of eth0. Taking storm control away makes them anew."""
    threads = {1: RESILIENT}

    class Block:
        def __init__(self, change: Change):
            self._change = change

        def read(self) -> Value | None:
            if isinstance(self._change, ThreadChange):
                return threads.get(self._change.napi_id)
            return XdpProgram(xdp_program=7)

        def write(self, values: Mapping[str, Any]) -> None:
            if isinstance(self._change, ThreadChange):
                threads[self._change.napi_id] = replace(threads[self._change.napi_id], **values)
            else:
                threads.pop(1)
                threads[2] = NEW
                monkeypatch.setattr(one_change, "_check", lambda *_: None)

    @contextmanager
    def opened(change: Change, _places: object) -> Iterator[Block]:
        yield Block(change)

    monkeypatch.setattr(one_change, "opened", opened)
    monkeypatch.setattr(
        after_reset, "instances", lambda *_: [napi(number, each.threaded or "") for number, each in threads.items()]
    )
    return threads


def recorded(journal: Journal, *changes: Change, keeper: Keeper | None = None) -> Transaction:
    one = begun("apply", "eth0", changes, keeper=keeper)
    return journal.update(replace(one, number=journal.begin(one)), "applied")


def plan(inode: int) -> ThreadChange:
    """Of `plan --goal resilient`."""
    return ThreadChange(netns=inode, device="eth0", ifindex=2, napi_id=1, before=NEW, after=RESILIENT)


def test_threads_of_an_applied_plan_are_set_again_and_go_with_it(tmp_path: Path, threads: Threads) -> None:
    with NetworkNamespace.current() as netns, Journal(tmp_path) as journal:
        made = recorded(journal, plan(netns.inode))
        before = [napi(1, "enabled")]
        threads.pop(1)
        threads[2] = NEW
        said = list(set_again(journal, netns, 2, before, [napi(2, "disabled")]))
        assert said == [f"{made.title} was set again: NAPI thread 2 of eth0"]
        assert threads == {2: RESILIENT}
        (now,) = journal.live()
        assert now.changes == (replace(plan(netns.inode), napi_id=2),)


def test_undoing_storm_control_sets_again_what_its_reset_took(tmp_path: Path, threads: Threads) -> None:
    with NetworkNamespace.current() as netns, Journal(tmp_path) as journal:
        recorded(journal, plan(netns.inode))
        recorded(journal, storm_control(netns.inode), keeper=dead())
        list(recover(journal))
        assert threads == {2: RESILIENT}
        assert [each.changes for each in journal.live()] == [(replace(plan(netns.inode), napi_id=2),)]


def test_what_is_put_back_after_it_is_put_back_as_it_was_set_again(tmp_path: Path, threads: Threads) -> None:
    with NetworkNamespace.current() as netns, Journal(tmp_path) as journal:
        recorded(journal, plan(netns.inode), keeper=dead())
        recorded(journal, storm_control(netns.inode), keeper=dead())
        list(recover(journal))
        assert threads == {2: NEW}
        assert journal.live() == []


def test_nothing_is_asked_where_no_storm_control_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> list[Napi]:
        raise AssertionError

    monkeypatch.setattr(after_reset, "instances", asked)
    with Journal(tmp_path) as journal, set_again_after(journal, [plan(1)]) as words:
        pass
    assert words == []
