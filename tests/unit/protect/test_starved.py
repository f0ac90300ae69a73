"""When threads at nice 19 get too little: only where somebody who waits for no packet has their CPU."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.sleeps import Sleeps
from napctl.kernel.snmp import Served
from napctl.protect.starved import (
    HELD_SHARE,
    UNFAIR_SHARE,
    CpuHolder,
    Goodput,
    Share,
    ThreadReading,
    before_nice,
    goodput_between,
    kept,
    share_between,
    steady_since,
    why_it_would,
    why_starved,
    with_less_offered,
)

STARVED = Share(ran=0.014, waited=0.98)


def holder(ran: float = 0.97, cpu: int = 1, *, nice: int = 0, has_sockets: bool = False) -> CpuHolder:
    return CpuHolder(pid=77, name="stress", cpu=cpu, nice=nice, ran=ran, has_sockets=has_sockets)


def test_a_program_that_never_waits_starves_them_and_is_named() -> None:
    words = "stress (77) never waits and had 97 % of CPU 1, the packets' thread waited 98 % of the time and had 1 %"
    assert why_starved([Share(0.5, 0.1), STARVED], [holder()], None) == words


@pytest.mark.parametrize(
    ("threads", "holders"),
    [
        ([STARVED], []),  # the server has it, and sleeps whenever it has read all
        ([Share(0.5, 0.49)], [holder()]),
        ([Share(0.33, 0.66)], [holder(0.33, nice=19)]),
        ([STARVED], [holder(HELD_SHARE / 2)]),
        ([], [holder()]),
    ],
)  # fmt: skip
def test_they_are_not_starved(threads: Sequence[Share], holders: Sequence[CpuHolder]) -> None:
    assert why_starved(threads, holders, 0.9) == ""


def test_one_that_is_as_nice_within_a_session_of_its_own_starves_them_all_the_same() -> None:
    assert why_starved([STARVED], [holder(0.97, nice=19)], None).startswith("stress (77) never waits")


def test_many_that_wait_now_and_then_starve_them_as_well_where_less_is_served_than_before() -> None:
    words = "the packets' thread waited 98 % of the time and had 1 %, 25 % of what was served before still is"
    assert why_starved([STARVED], [], 0.25) == words
    assert why_starved([Share(0.5, 0.49)], [], 0.25) == ""


def test_one_with_sockets_may_be_their_server_unless_less_is_delivered_than_before() -> None:
    busy = [holder(has_sockets=True)]
    assert why_starved([STARVED], busy, None) == ""
    assert why_starved([STARVED], busy, 0.9) == ""
    assert why_starved([STARVED], busy, 0.25).endswith(", 25 % of what was served before still is")


def test_the_step_would_starve_them_only_if_each_cpu_that_they_may_have_is_held() -> None:
    assert why_it_would({1}, [holder()]).startswith("stress (77) never waits: at nice 19 ")
    assert why_it_would({0, 1}, [holder()]) == ""
    assert why_it_would({0, 1}, [holder(), holder(cpu=0)]) != ""
    assert why_it_would({1}, [holder(has_sockets=True)]) == ""
    assert why_it_would({1}, [holder(nice=19)]) == ""
    assert why_it_would(None, [holder()]) == ""
    assert why_it_would(set(), [holder()]) == ""


shares = st.floats(0, 1)
all_holders = st.builds(
    CpuHolder, pid=st.just(77), name=st.just("x"), cpu=st.integers(0, 3), nice=st.integers(-20, 19), ran=shares,
    has_sockets=st.booleans(),
)  # fmt: skip


@given(st.lists(st.builds(Share, shares, shares)), st.lists(all_holders), st.none() | shares, all_holders)
def test_who_has_more_of_the_cpu_never_makes_it_less_starved(
    threads: Sequence[Share], holders: Sequence[CpuHolder], goodput: float | None, more: CpuHolder
) -> None:
    if why_starved(threads, holders, goodput):
        assert why_starved(threads, [*holders, more], goodput)
        fell = goodput is not None and goodput < 0.9
        unfair = max(each.waited for each in threads) > UNFAIR_SHARE
        assert fell or any(each.nice < 19 or unfair for each in holders)


@given(st.sets(st.integers(0, 3)), st.lists(all_holders))
def test_with_a_cpu_more_it_is_never_starved_more(cpus: set[int], holders: Sequence[CpuHolder]) -> None:
    if not why_it_would(cpus, holders):
        assert not cpus or not why_it_would({*cpus, 9}, holders)


def test_a_thread_that_never_slept_waited_whenever_it_did_not_run_though_that_wait_has_not_ended() -> None:
    before, after = ThreadReading(0, 0, Sleeps(5, now=False)), ThreadReading(10**7, 0, Sleeps(5, now=False))
    assert share_between(before, after, 1.0) == Share(0.01, 0.99)
    slept = ThreadReading(10**7, 0, Sleeps(6, now=False))
    assert share_between(before, slept, 1.0) == Share(0.01, 0.0)


def test_goodput_is_compared_by_the_kind_that_lost_least_of_those_that_tell_anything() -> None:
    before: Goodput = {"sent_segments": 1_000.0, "read_datagrams": 10_000.0, "forwarded": 1.0}
    assert kept(before, {"sent_segments": 900.0, "read_datagrams": 2_000.0, "forwarded": 0.0}) == 0.9
    assert kept({"forwarded": 1.0}, {"forwarded": 0.0}) is None
    assert kept({}, before) is None


def test_of_what_is_forwarded_the_flood_as_it_is_counts_and_of_the_rest_the_whole_window() -> None:
    window: Goodput = {"read_datagrams": 10.0, "forwarded": 20_000.0}
    for forwarded in (50_000.0, 5_000.0):
        steadily: Goodput = {"read_datagrams": 900.0, "forwarded": forwarded}
        assert before_nice(window, steadily) == {"read_datagrams": 10.0, "forwarded": forwarded}
    assert before_nice({}, {"forwarded": 50_000.0}) == {"forwarded": 50_000.0}, "seen too soon for a window"
    assert before_nice(window, {}) == window


@pytest.mark.parametrize(
    ("offered", "since"),
    [
        ([100.0], 0),
        ([0.0, 40.0, 100.0, 100.0], 1),
        ([20.0, 100.0, 90.0, 100.0], 0),
        ([90.0, 100.0, 20.0, 100.0], 2),
        ([400.0, 400.0, 100.0], 1),
        ([0.0, 0.0], 0),
    ],
)
def test_a_flood_is_steady_since_the_look_after_which_it_was_as_it_is(offered: list[float], since: int) -> None:
    assert steady_since(offered) == since


def test_of_fewer_packets_no_more_can_be_forwarded() -> None:
    before: Goodput = {"read_datagrams": 10.0, "forwarded": 50_000.0}
    assert with_less_offered(before, 100_000, 40_000) == {"read_datagrams": 10.0, "forwarded": 20_000.0}
    assert with_less_offered(before, 100_000, 400_000) == before
    assert with_less_offered({}, 100_000, 40_000) == {}


def test_a_counter_that_fell_tells_no_goodput() -> None:
    first, second = Served(read_datagrams=10, sent_segments=0, forwarded=0), Served(5, 0, 20)
    assert goodput_between(first, second, 2.0) == {"sent_segments": 0.0, "forwarded": 10.0}
    assert goodput_between(None, second, 2.0) == {}
