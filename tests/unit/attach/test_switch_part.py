"""Which settings of an attachment are exchanged where only a part of it changes its way."""

from collections.abc import Callable
from typing import cast

import pytest

from napctl.attach import switch_way as module
from napctl.attach.parts import Part
from napctl.attach.switch_way import has_one_way, in_way, switch_way
from napctl.change.exchange import Block, Exchanged
from napctl.change.journal import Journal
from napctl.model.change import Change, NapiChange, Transaction
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
