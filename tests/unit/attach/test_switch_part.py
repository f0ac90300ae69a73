"""Which settings of an attachment are exchanged where only a part of it changes its way."""

from collections.abc import Callable
from typing import cast

import pytest
from msgspec.structs import replace

from napctl.attach import switch_way as module
from napctl.attach.parts import Part
from napctl.attach.switch_way import has_one_way, in_force, in_way, switch_way
from napctl.change.exchange import Block, Exchanged
from napctl.change.journal import Journal
from napctl.model.change import Change, EpollChange, NapiChange, Transaction
from napctl.model.suspension import Suspension
from tests.unit.attach.steps import attached
from tests.unit.attach.targets import NETNS, examination, instance

TRANSACTION = attached(examination(instance(5, {300: 1}, pid=10), instance(5, {301: 1}, pid=11)))
LIGHT = Part(frozenset({(NETNS, 301)}), frozenset({11}))
OFF = in_way(Suspension(), None)


@pytest.mark.parametrize("part", [None, LIGHT])
def test_a_part_alone_is_written_to(part: Part | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Change, Block | None]] = []

    def exchange(
        _journal: Journal, was: Transaction, wanted: Callable[[Change], Block | None], *_more: object
    ) -> Exchanged:
        asked.extend((change, wanted(change)) for change in was.changes)
        return Exchanged(was, ())

    monkeypatch.setattr(module, "exchange", exchange)
    switch_way(cast("Journal", None), TRANSACTION, OFF, None, part)
    assert len(asked) == 4
    for change, block in asked:
        theirs = OFF.napi if isinstance(change, NapiChange) else OFF.epoll
        assert block == (theirs if part is None or part.has(change) else None)
    assert sum(block is not None for _, block in asked) == (4 if part is None else 2)


def test_what_was_given_the_same_has_one_way() -> None:
    assert has_one_way(TRANSACTION)


@pytest.mark.parametrize("first", [300, 301])
def test_of_two_groups_what_is_in_force_is_all_of_one(first: int) -> None:
    """Not the deferral of one and the polling of the other, whichever comes first."""
    changes = [
        replace(change, after=OFF.napi if isinstance(change, NapiChange) else OFF.epoll)
        if LIGHT.has(change) and isinstance(change, NapiChange | EpollChange)
        else change
        for change in TRANSACTION.changes
    ]
    napis = [each for each in changes if isinstance(each, NapiChange)]
    napis.sort(key=lambda each: each.napi_id != first)
    for epolls in ([each for each in changes if not isinstance(each, NapiChange)][::step] for step in (1, -1)):
        found = in_force(replace(TRANSACTION, changes=(*napis, *epolls)), Suspension())
        assert found == (Suspension() if first == 300 else OFF)


def test_where_no_napi_instance_is_attached_most_who_poll_say_what_is_in_force() -> None:
    (first, *others) = (each for each in TRANSACTION.changes if isinstance(each, EpollChange))
    changes = (replace(first, after=OFF.epoll), *others, *others)
    assert in_force(replace(TRANSACTION, changes=changes), Suspension()).prefer_busy_poll
