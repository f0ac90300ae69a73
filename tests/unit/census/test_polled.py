"""Who polls: each packet has one way, and what would take the next one is said where none came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.census.polled import polled
from napctl.model.settings import EpollParams, NapiSettings
from tests.unit.census.machines import DEFERRED, NAPI, OFF, SUSPENDED, by_process, epoll, row

SPINS = replace(OFF, threaded="busy-poll")
THREAD = replace(OFF, threaded="enabled")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (OFF, "interrupts"),
        (None, "interrupts"),
        (DEFERRED, "deferral"),
        (replace(OFF, defer_hard_irqs=100), "interrupts"),  # half of it is none
        (THREAD, "NAPI thread"),
        (SPINS, "spinning NAPI thread"),
    ],
)
def test_without_a_packet_it_is_said_who_would_take_the_next_one(settings: NapiSettings | None, kind: str) -> None:
    (way,) = polled(row(settings=settings), ())
    assert (way.kind, way.packets, way.share) == (kind, 0, None)


def test_without_a_probe_nothing_is_counted_and_nothing_stands_as_none() -> None:
    (way,) = polled(row(counted=False), ())
    assert (way.kind, way.packets, way.share) == ("interrupts", None, None)


def test_shares_are_of_the_packets_of_the_instance_and_the_most_comes_first() -> None:
    ways = polled(row(softirq=250, thread=150, pollers=(by_process(600),)), ())
    assert [(way.kind, way.by, way.share) for way in ways] == [
        ("busy polling", "memcached (7)", 0.6),
        ("interrupts", None, 0.25),
        ("NAPI thread", None, 0.15),
    ]
    assert all("probe" in way.evidence[0] for way in ways)


def test_what_a_process_polls_is_suspension_only_if_its_epoll_instance_prefers_that_and_the_timer_is_set() -> None:
    mine = (by_process(10),)
    blind = EpollParams(busy_poll_usecs=50, busy_poll_budget=8, prefer_busy_poll=False)

    def kind(settings: NapiSettings, params: EpollParams | None) -> str:
        return polled(row(settings=settings, pollers=mine), (epoll(params=params),) if params else ())[0].kind

    assert kind(SUSPENDED, epoll().params) == "suspension"
    assert kind(SUSPENDED, blind) == "busy polling"
    assert kind(SUSPENDED, None) == "busy polling"  # a socket's own, or nobody may look
    assert kind(DEFERRED, epoll().params) == "busy polling"


def test_who_would_poll_is_named_before_his_first_packet() -> None:
    ways = polled(row(settings=SUSPENDED), (epoll(), epoll(NAPI + 1)))
    assert [(way.kind, way.by) for way in ways] == [("suspension", "memcached (7)"), ("deferral", None)]


def test_polls_of_processes_that_found_no_place_are_nobodys() -> None:
    ways = polled(row(pollers=(by_process(6),), unnamed=4), ())
    assert [(way.by, way.packets) for way in ways] == [("memcached (7)", 6), (None, 4)]


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=4), st.integers(0, 10**6),
    st.sampled_from([OFF, DEFERRED, SUSPENDED, THREAD, SPINS, None]), st.booleans(),
)  # fmt: skip
def test_no_packet_is_lost_or_counted_twice(
    softirq: int, thread: int, own: list[int], unnamed: int, settings: NapiSettings | None, watched: bool
) -> None:
    pollers = tuple(by_process(packets, pid=7 + number, name=f"p{number}") for number, packets in enumerate(own))
    one = row(settings=settings, softirq=softirq, thread=thread, pollers=pollers, unnamed=unnamed)
    ways = polled(one, (epoll(),) if watched else ())

    assert ways
    assert sum(way.packets or 0 for way in ways) == one.polls.packets
    shares = [way.share for way in ways if way.share is not None]
    assert not shares or abs(sum(shares) - 1) < 1e-9
    assert [way.packets or 0 for way in ways] == sorted((way.packets or 0 for way in ways), reverse=True)
