"""The loop around the controller where loads of an attachment's parts differ: on made-up counters, without a kernel."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from napctl.adapt.grouping import DIFFER_SECONDS
from napctl.adapt.ways import INTERRUPTS
from napctl.attach import adapting as module
from napctl.attach import window_probes
from napctl.attach.follow_step import NapiKey
from napctl.attach.parts import FORGET_LOOKS
from napctl.model.errors import NapctlError
from napctl.probe import ProbeUnavailable
from tests.unit.attach.adapted_server import FEEDS, Latencies, Server, attachment
from tests.unit.attach.targets import NETNS


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch, {300: 100_000, 301: 3_000})


def test_unlike_loads_become_two_groups_after_a_while_and_each_gets_its_own_way(server: Server) -> None:
    server.adapting.told(FEEDS)
    began = server.world.now
    server.run(600)
    ((at, groups),) = server.divisions
    assert groups == 2
    assert at - began >= DIFFER_SECONDS
    heavy, light = server.adapting.ways
    assert heavy != INTERRUPTS
    assert light == INTERRUPTS
    assert (server.world.ways[300], server.world.ways.get(301, INTERRUPTS)) == (heavy, light)
    assert {part for moment, part, _ in server.changes if moment > at} <= {"NAPI 300", "NAPI 301"}
    assert {part for moment, part, _ in server.changes if moment <= at} <= {"all"}


def test_like_loads_stay_one_decision(server: Server) -> None:
    server.world.loads = {300: 60_000, 301: 50_000}
    server.adapting.told(FEEDS)
    server.run(300)
    assert server.divisions == []
    assert {part for _, part, _ in server.changes} <= {"all"}


def test_loads_that_are_alike_again_come_to_one_way(server: Server) -> None:
    server.adapting.told(FEEDS)
    server.run(600)
    server.world.loads = {300: 60_000, 301: 60_000}
    server.run(120)
    assert [groups for _, groups in server.divisions] == [2, 1]
    about = [each for each in server.told if each.startswith("loads ")]
    assert about == [
        "loads differ, so there is a decision for each (NAPI 300: 100,000 packets/s, NAPI 301: 3,000 packets/s)",
        "loads are alike again: one for all",
    ]
    assert server.world.ways[300] == server.world.ways[301]


def test_where_nothing_tells_who_takes_in_what_it_is_one_decision_and_that_is_said(server: Server) -> None:
    server.adapting.told({10: frozenset({300, 301}), 11: frozenset({301})})
    server.run(300)
    assert server.divisions == []
    assert [each for each in set(server.said) if "one decision for all" in each]


def test_a_look_that_finds_other_feeds_makes_it_one_group_and_what_is_not_known_now_stays(server: Server) -> None:
    server.adapting.told(FEEDS)
    server.run(300)
    assert len(server.adapting.ways) == 2
    first = server.adapting.ways[0]
    assert not server.adapting.told({10: frozenset({300})}), "the other has no connection now"
    assert len(server.adapting.ways) == 2
    assert server.adapting.told({11: frozenset({300, 301})})
    assert list(server.adapting.ways) == [first]
    server.run(10)


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Workers, of which one has little to do."""
    server = Server(tmp_path, monkeypatch, {300: 100_000, 301: 3_000, 302: 90_000})
    server.adapting.follow(attachment((10, 11, 12)))
    return server


def test_a_connection_that_some_looks_see_and_others_do_not_keeps_no_groups_from_being_made(three: Server) -> None:
    for _ in range(5):
        for ids in ({300}, {300, 302}):
            three.adapting.told({**FEEDS, 10: frozenset(ids)})
            three.run(DIFFER_SECONDS / 3)
    ((_, groups),) = three.divisions
    assert groups == 2


def test_groups_stay_where_parts_join_or_come_apart_within_them(three: Server) -> None:
    three.adapting.told(FEEDS)
    three.run(300)
    heavy, light = three.adapting.ways
    assert heavy != light
    assert not three.adapting.told({10: frozenset({300, 302})}), "both are of the heavy one"
    three.run(120)
    assert [groups for _, groups in three.divisions] == [2]
    for _ in range(FORGET_LOOKS):
        assert not three.adapting.told({10: frozenset({300})})
    assert len(three.adapting._units) == 3
    three.world.loads[302] = 3_000
    three.run(120)
    assert {three.world.ways.get(napi_id, INTERRUPTS) for napi_id in (301, 302)} == {INTERRUPTS}
    assert three.world.ways[300] != INTERRUPTS


def test_another_worker_makes_it_one_group(server: Server) -> None:
    server.adapting.told(FEEDS)
    server.run(300)
    first = server.adapting.ways[0]
    server.adapting.follow(attachment((10, 11, 12)))
    assert list(server.adapting.ways) == [first]
    server.world.ways = {300: first, 301: first, 302: first}
    server.adapting.told(FEEDS)
    server.world.loads = {300: 100_000, 301: 3_000, 302: 3_100}
    server.run(120)
    assert len(server.adapting.ways) == 2


@pytest.mark.parametrize("error", [ProbeUnavailable("no BPF here"), OSError("no BPF here")])
def test_a_probe_that_cannot_tell_them_apart_leaves_one_decision_and_is_not_loaded_all_the_time(
    error: Exception, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    def divide(parts: Sequence[object]) -> None:
        if parts:
            tries.append(server.world.now)
            raise error

    monkeypatch.setattr(server.world, "divide", divide)
    server.adapting.told(FEEDS)
    server.run(2.5 * window_probes.RENEW_SECONDS)
    assert server.divisions == []
    assert set(server.said) == {
        "NAPI instances of unlike loads cannot be told apart: no BPF here; one decision for all"
    }
    assert len(tries) == 3
    assert server.world.freed == 2, "what is loaded does not stay for ever"
    assert all(later - earlier >= window_probes.RENEW_SECONDS for earlier, later in pairwise(tries))


def test_groups_that_could_not_be_made_are_made_the_next_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was that went wrong: they are not taken for made."""
    divide, errors = server.world.divide, [NapctlError("out of something")]

    def divide_at_last(parts: Sequence[tuple[frozenset[NapiKey], frozenset[int]]]) -> None:
        if parts and errors:
            raise errors.pop()
        divide(parts)

    monkeypatch.setattr(server.world, "divide", divide_at_last)
    server.adapting.told(FEEDS)
    with pytest.raises(NapctlError):
        server.run(300)
    assert len(server.adapting.ways) == 1
    server.run(DIFFER_SECONDS + 10)
    assert len(server.adapting.ways) == 2


@pytest.mark.parametrize("load", [100_000, 3_000])
def test_once_nothing_changes_requests_are_looked_at_for_a_quarter_of_the_time(server: Server, load: float) -> None:
    """What is attached to a tracepoint costs each of its events: most where a server has no CPU time to spare."""
    server.world.loads = {300: load, 301: load}
    server.adapting.told(FEEDS)
    server.run(900)
    before, changes = server.world.looked_seconds, len(server.changes)
    server.run(120)
    assert len(server.changes) == changes
    assert 0.2 * 120 <= server.world.looked_seconds - before <= 0.3 * 120
    server.world.loads = {300: 20_000, 301: 20_000}
    before = server.world.looked_seconds
    server.run(2)
    assert server.world.looked_seconds - before >= 1, "another load is looked at at once"


def test_where_looking_cannot_be_gone_on_with_the_wait_for_a_poll_counts_and_that_is_said(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Latencies) -> None:
        raise ProbeUnavailable("no BPF any more")

    monkeypatch.setattr(Latencies, "resume", refuse)
    server.run(30)
    assert server.said == [
        "server-side latency is no longer measured: no BPF any more; adapting by the wait for a poll"
    ]


def test_a_moment_in_which_looking_cannot_be_gone_on_with_teaches_nothing_and_nothing_is_forgotten(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals, resume = [ProbeUnavailable("no descriptors")] * (window_probes.MOST_REFUSALS - 1), Latencies.resume

    def resume_at_last(self: Latencies) -> None:
        if refusals:
            raise refusals.pop()
        resume(self)

    server.world.loads = {300: 20_000, 301: 20_000}
    server.run(300)
    known = {(each.octave, each.way) for each in server.adapting._states[0].learned.cells if each.p99.weight}
    monkeypatch.setattr(Latencies, "resume", resume_at_last)
    before = server.adapting._states[0].learned.traffic_seconds
    server.run(30)
    learned = server.adapting._states[0].learned
    assert not refusals
    assert server.said == []
    assert not learned.until_poll_only
    assert known <= {(each.octave, each.way) for each in learned.cells if each.p99.weight}
    assert learned.traffic_seconds - before <= 30 - 4


def test_of_a_window_in_which_threads_came_or_went_nothing_is_learned_and_then_they_are_counted(
    server: Server,
) -> None:
    """As `napctl protect` gives them to a device, and takes them back."""
    server.world.loads = {300: 20_000, 301: 20_000}
    server.run(300)
    before = server.adapting._states[0].learned.traffic_seconds
    for threads in ({(NETNS, 300): 900, (NETNS, 301): 901}, {}):
        server.world.threads = threads
        server.run(30.25)
    state = server.adapting._states[0]
    assert server.world.pids == {10, 11}
    assert 50 < state.learned.traffic_seconds - before < 60
    assert all(each.cost.variance < 1e-4 for each in state.learned.cells)


def test_windows_of_groups_are_longer_as_the_lightest_has_few_samples(server: Server) -> None:
    server.adapting.told(FEEDS)
    server.run(300)
    server.adapting._begin_in(0.0)
    server.world.run(0.5)  # a glance that sees packets
    began = server.world.now
    turn = server.adapting.turn()
    while turn is None:
        server.world.run(server.adapting.seconds_left(server.world.now))
        turn = server.adapting.turn()
    assert server.world.now - began >= 0.9 * module.GROUPS_SECONDS
