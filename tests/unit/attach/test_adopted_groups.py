"""Groups of an attachment's parts that another follower has left: they go on, or become one again."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from napctl.adapt.ways import INTERRUPTS, Way
from napctl.attach import adapting as module
from napctl.attach import follow_way
from napctl.attach.adapting import Adapting
from napctl.attach.attach_options import AttachOptions
from napctl.attach.follow_way import FollowWay
from napctl.attach.follow_words import Words
from napctl.attach.parts import FORGET_LOOKS
from napctl.attach.switch_way import in_way
from napctl.model.change import EpollChange, NapiChange, Transaction
from napctl.model.suspension import Suspension
from napctl.probe import ProbeUnavailable
from tests.unit.attach.adapted_server import FED, FEEDS, GOAL, Server, attachment
from tests.unit.attach.targets import NETNS, examination, instance, judged

TIMER = Way(gro_flush_timeout_ns=200_000)
LEFT = {300: TIMER, 301: INTERRUPTS}


def left_in(ways: dict[int, Way]) -> Transaction:
    """An attachment whose groups had these ways when its keeper was killed."""

    def of(napi_id: int) -> Suspension:
        return in_way(Suspension(), ways[napi_id].gro_flush_timeout_ns)

    was = attachment([pid for pid, napi_id in FED.items() if napi_id in ways])
    changes = (
        replace(each, after=of(each.napi_id).napi)
        if isinstance(each, NapiChange)
        else replace(each, after=of(FED[each.pid]).epoll)
        for each in was.changes
        if isinstance(each, NapiChange | EpollChange)
    )
    return replace(was, changes=tuple(changes))


class Adopted(Server):
    """Groups of another one's, taken over."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        super().__init__(tmp_path, monkeypatch, {300: 100_000, 301: 3_000})
        self.world.ways = dict(LEFT)
        self.adapting = Adapting(GOAL, left_in(LEFT), tmp_path, self.said.append, TIMER)


@pytest.fixture
def adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adopted:
    return Adopted(tmp_path, monkeypatch)


def test_groups_that_another_one_has_left_go_on_once_a_look_has_told_who_feeds_whom(adopted: Adopted) -> None:
    assert adopted.adapting.ways == (TIMER, INTERRUPTS)
    adopted.run(5)
    assert not adopted.adapting.told({10: frozenset({300})}), "nothing is known of the other yet"
    adopted.run(5)
    assert adopted.changes == []
    assert not adopted.adapting.told({11: frozenset({301})})
    assert len(adopted.world.parts) == 2
    assert adopted.adapting.ways == (TIMER, INTERRUPTS)
    adopted.run(600)
    assert adopted.divisions == []
    assert {part for _, part, _ in adopted.changes} <= {"NAPI 300", "NAPI 301"}
    assert adopted.adapting._states[1].learned.cells, "it has begun to learn"
    assert not any("one way for all" in each for each in (*adopted.said, *adopted.told))
    adopted.world.loads = {300: 60_000, 301: 60_000}
    adopted.run(120)
    assert [groups for _, groups in adopted.divisions] == [1]


@pytest.mark.parametrize("feeds", [{}, {10: frozenset({300})}, {**FEEDS, 10: frozenset({300, 301})}])
def test_groups_that_no_look_tells_apart_become_one_after_a_while(
    feeds: dict[int, frozenset[int]], adopted: Adopted
) -> None:
    for _ in range(3):
        assert not adopted.adapting.told(feeds)
        adopted.run(module.TOLD_SECONDS / 3 - 1)
    assert adopted.changes == []
    adopted.run(10)
    assert [(part, way) for _, part, way in adopted.changes] == [("all", str(TIMER))]
    assert adopted.adapting.ways == (TIMER,)


def test_groups_for_which_the_probe_cannot_be_loaded_become_one(
    adopted: Adopted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def divide(parts: Sequence[object]) -> None:
        if parts:
            raise ProbeUnavailable("no BPF here")

    monkeypatch.setattr(adopted.world, "divide", divide)
    assert adopted.adapting.told(FEEDS)
    assert adopted.adapting.ways == (TIMER,)


def test_a_switch_of_all_before_a_look_leaves_one_group(adopted: Adopted) -> None:
    other = Way(gro_flush_timeout_ns=50_000)
    adopted.adapting.switched(other)
    assert adopted.adapting.ways == (other,)
    assert not adopted.adapting.told(FEEDS)
    assert adopted.adapting.ways == (other,)
    assert not adopted.world.parts


def test_a_follower_that_takes_over_two_groups_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adopted: Adopted
) -> None:
    monkeypatch.setattr(follow_way, "time", SimpleNamespace(monotonic=lambda: adopted.world.now))
    way = FollowWay(AttachOptions(Suspension(), goal=GOAL), tmp_path, Words(lambda _line, _kind=None: None))
    assert way.adopt(left_in(LEFT)) == TIMER
    assert not way.is_another_wanted()
    assert not way.polls, "not all of it"
    way.look(judged(examination(*(instance(5, {FED[pid]: 1}, pid=pid) for pid in (10, 11)))))
    adopted.world.run(1.0)
    assert not way.is_another_wanted()
    assert len(adopted.world.parts) == 2
    assert way.suspension == in_way(Suspension(), 200_000)


def test_a_look_that_sees_a_worker_across_groups_that_were_left_waits_for_another(
    tmp_path: Path, adopted: Adopted
) -> None:
    """It may have been a connection that is about to close."""
    three_ways = {300: TIMER, 301: INTERRUPTS, 302: INTERRUPTS}
    adapting = Adapting(GOAL, left_in(three_ways), tmp_path, adopted.said.append, TIMER)
    assert not adapting.told({**FEEDS, 10: frozenset({300, 302})})
    assert adapting.ways == (TIMER, INTERRUPTS)
    for _ in range(FORGET_LOOKS):
        assert not adapting.told(FEEDS)
    assert [each.napis for each in (group.part for group in adapting._groups)] == [
        {(NETNS, 300)},
        {(NETNS, 301), (NETNS, 302)},
    ]
