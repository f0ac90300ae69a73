"""What is forwarded at nice 19 is set against the flood as it was before, and against what is offered by now."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from napctl.kernel import snmp
from napctl.kernel.snmp import Served
from napctl.model.machine import Napi
from napctl.model.settings import NapiSettings
from napctl.protect import nice_watch as module
from napctl.protect.cpu_holders import CpuHolders
from napctl.protect.groups import Protected
from napctl.protect.ladder import WINDOW_SECONDS, Flood, Ladder
from napctl.protect.nice_watch import NiceWatch
from napctl.protect.starved import ThreadReading


@dataclass(frozen=True)
class Look:
    """What becomes of packets until it, a second."""

    offered: float
    forwarded: float
    waited: float = 0.0
    """Share of the time that the thread wants its CPU."""
    whole: bool = True
    """All drops are counted."""


Watched = Callable[[Sequence[Look], Sequence[Look]], str]


@pytest.fixture
def starved(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Why the thread gets too little at the last of the looks that come before it is nice, and after that."""

    def watched(before: Sequence[Look], after: Sequence[Look]) -> str:
        now = forwarded = waited = 0.0
        monkeypatch.setattr(snmp, "served", lambda _: Served(0, 0, round(forwarded)))
        monkeypatch.setattr(module, "_reading", lambda _: ThreadReading(0, round(waited * 1e9), None))
        monkeypatch.setattr(CpuHolders, "read", lambda _: ())
        napi = Napi(napi_id=300, ifindex=2, irq=None, cpus="0", settings=NapiSettings(), thread_pid=os.getpid())
        group = Protected("eth0", 2, (napi,), frozenset({0}))
        watch, why = NiceWatch(cast("Any", None), lambda: now), ""
        for looks, ladder in ((before, Ladder()), (after, Ladder(made=("threads", "nice")))):
            group.ladder = ladder
            for each in looks:
                now += WINDOW_SECONDS
                forwarded += each.forwarded * WINDOW_SECONDS
                waited += each.waited * WINDOW_SECONDS
                seen = Flood(offered_per_second=each.offered, is_whole=each.whole)
                why = watch.read([group], [seen])[0].starved
        return why

    return watched


IDLE = [Look(0, 0)] * 9


def test_a_flood_that_begins_from_idle_is_known_before_a_window_is_over(starved: Watched) -> None:
    flood = [Look(50_000, 48_000), Look(100_000, 95_000)]
    why = starved([*IDLE, *flood], [Look(100_000, 19_000, waited=0.98)] * 4)
    assert why.endswith(", 20 % of what was served before still is")
    assert starved([*IDLE, *flood], [Look(100_000, 94_000, waited=0.98)] * 4) == ""


def test_of_a_flood_that_begins_amid_traffic_nothing_counts_that_came_before_it(starved: Watched) -> None:
    """By a window with a part of that in it 93 % would still be forwarded."""
    before = [*[Look(20_000, 20_000)] * 4, *[Look(100_000, 90_000)] * 2]
    why = starved(before, [Look(100_000, 62_000, waited=0.6)] * 4)
    assert why.endswith(", 69 % of what was served before still is")


@pytest.mark.parametrize(
    "last", [Look(100_000, 100_000), Look(50_000, 70_000)], ids=["of what is offered", "of what is forwarded"]
)
def test_a_burst_at_the_last_look_makes_nobody_starved_after_it(starved: Watched, last: Look) -> None:
    before = [*[Look(50_000, 50_000)] * 4, last]
    assert starved(before, [Look(50_000, 52_000, waited=0.6)] * 4) == ""


def test_where_less_is_offered_less_is_forwarded_unless_drops_may_be_uncounted(starved: Watched) -> None:
    before = [Look(100_000, 95_000)] * 5
    assert starved(before, [Look(20_000, 19_000, waited=0.98)] * 4) == ""
    why = starved(before, [Look(20_000, 19_000, waited=0.98, whole=False)] * 4)
    assert why.endswith(", 20 % of what was served before still is")


@pytest.mark.parametrize("last", [20_000, 100_000])
def test_of_bursts_what_was_offered_while_it_was_forwarded_counts_and_not_the_last_look_alone(
    starved: Watched, last: float
) -> None:
    before = [Look(100_000, 95_000)] * 5
    bursts = [20_000, 20_000, 100_000, 20_000, 100_000, last]
    assert starved(before, [Look(each, 0.95 * each, waited=0.98) for each in bursts]) == ""
    why = starved(before, [Look(each, 0.7 * each, waited=0.98) for each in bursts])
    assert why.endswith(", 74 % of what was served before still is")


def test_at_a_look_of_which_not_all_is_counted_as_much_may_have_been_offered_as_before(starved: Watched) -> None:
    before = [Look(100_000, 95_000)] * 5
    looks = [Look(20_000, 19_000, waited=0.98)] * 2
    why = starved(before, [*looks, Look(20_000, 19_000, waited=0.98, whole=False), *looks])
    assert why.endswith(", 43 % of what was served before still is")
