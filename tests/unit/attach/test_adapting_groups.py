"""The loop around the controller where loads of an attachment's parts differ: on made-up counters, without a kernel."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from napctl.adapt.grouping import DIFFER_SECONDS
from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import INTERRUPTS, Way
from napctl.attach import adapting as module
from napctl.attach import window_probes
from napctl.attach.adapting import Adapting
from napctl.attach.follow_step import NapiKey
from napctl.attach.packet_cost import CostReading, PartReading
from napctl.attach.parts import FORGET_LOOKS
from napctl.model.change import Transaction
from napctl.model.errors import NapctlError
from napctl.model.latency import BOUNDS_NS, LatencyHistogram, ProcessLatency
from napctl.model.suspension_counts import WAIT_BUCKETS, SuspensionCounts
from napctl.probe import ProbeUnavailable
from tests.unit.adapt.worlds import WAYS, memcached
from tests.unit.attach.steps import attached
from tests.unit.attach.targets import NETNS, examination, instance

GOAL = LatencyGoal(ways=WAYS, budget_ns=1_000_000)
FED = {10: 300, 11: 301, 12: 302}
"""The NAPI instance of each process."""
FEEDS = {pid: frozenset({napi_id}) for pid, napi_id in FED.items()}


def attachment(pids: Collection[int] = (10, 11)) -> Transaction:
    return attached(examination(*(instance(5, {FED[pid]: 1}, pid=pid) for pid in pids)))


@dataclass
class World:
    """A machine on which time goes by only when run() says so: what the table says, for each NAPI instance."""

    loads: dict[int, float]
    now: float = 1_000.0
    ways: dict[int, Way] = field(default_factory=dict)
    counted: dict[int, float] = field(default_factory=dict)
    ran: dict[int, float] = field(default_factory=dict)
    waits: dict[int, list[float]] = field(default_factory=dict)
    parts: Sequence[tuple[frozenset[NapiKey], frozenset[int]]] = ()
    threads: dict[NapiKey, int] = field(default_factory=dict)
    """NAPI threads, each of which has half of the CPU time of its packets."""
    pids: Collection[int] = ()
    """Whose CPU time is counted."""
    looking: bool = True
    """At each request, as LatencyProbe does unless it pauses;"""
    looked_seconds: float = 0.0
    """for so long in all."""

    def run(self, seconds: float) -> None:
        self.now += seconds
        self.looked_seconds += seconds if self.looking else 0.0
        for pid, napi_id in FED.items():
            load = self.loads.get(napi_id, 0.0)
            cost, p99_ns = memcached(self.ways.get(napi_id, INTERRUPTS), load, self.now)
            self.counted[napi_id] = self.counted.get(napi_id, 0.0) + load * seconds
            for who in (pid, self.threads.get((NETNS, napi_id), pid)):
                self.ran[who] = self.ran.get(who, 0.0) + load * seconds * cost / 2
            counts = self.waits.setdefault(pid, [0.0] * len(BOUNDS_NS))
            if self.looking:
                counts[next(place for place, bound in enumerate(BOUNDS_NS) if bound > p99_ns) - 1] += 100 * seconds

    # As CostProbe.
    def __enter__(self) -> "World":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    is_full = False

    def follow(self, pids: Collection[int]) -> None:
        self.pids = pids

    freed = 0

    def free_unused(self) -> None:
        self.freed += 1

    def divide(self, parts: Sequence[tuple[frozenset[NapiKey], frozenset[int]]]) -> None:
        self.parts = parts

    def read(self, napis: Collection[NapiKey]) -> CostReading:
        waits = tuple(
            SuspensionCounts(
                napi_id=napi_id, netns=netns, waits=(round(self.counted.get(napi_id, 0)), *(0,) * (WAIT_BUCKETS - 1))
            )
            for netns, napi_id in sorted(napis)
        )
        parts = tuple(PartReading(of, pids, 0.0) for of, pids in self.parts)
        ran = {pid: self.ran.get(pid, 0.0) for pid in self.pids}
        return CostReading(self.now, ran, 0.0, waits, parts)

    def packets(self, napis: Collection[NapiKey]) -> int:
        return round(sum(self.counted.get(napi_id, 0.0) for _, napi_id in napis))


class Latencies:
    """As LatencyProbe."""

    is_full = has_pending = False

    def __init__(self, world: World):
        self._world = world

    def read(self) -> tuple[ProcessLatency, ...]:
        return tuple(
            ProcessLatency(pid=pid, until_read=LatencyHistogram(counts=tuple(map(round, counts))))
            for pid, counts in self._world.waits.items()
        )

    def pause(self) -> None:
        self._world.looking = False

    def resume(self) -> None:
        self._world.looking = True

    def add(self, _pid: int) -> None:
        pass

    def drop(self, _pid: int) -> None:
        pass

    def close(self) -> None:
        pass


class Threads:
    """As AttachedThreads."""

    def __init__(self, world: World):
        self._world = world

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def follow(self, _transaction: Transaction) -> None:
        pass

    def read(self) -> dict[NapiKey, int]:
        return dict(self._world.threads)


class Server:
    """An attachment that is adapted, as a follower does it."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: dict[int, float]):
        self.world = world = World(loads)
        self.said: list[str] = []
        self.told: list[str] = []
        self.divisions: list[tuple[float, int]] = []
        self.changes: list[tuple[float, str, str]] = []

        def cost_probe(pids: Collection[int]) -> World:
            world.follow(pids)
            return world

        monkeypatch.setattr(window_probes, "CostProbe", cost_probe)
        monkeypatch.setattr(window_probes, "LatencyProbe", SimpleNamespace(load=lambda _pids: Latencies(world)))
        monkeypatch.setattr(window_probes, "AttachedThreads", lambda _transaction: Threads(world))
        monkeypatch.setattr(module, "server_identity", lambda _transaction: "a world")
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: world.now))
        self.adapting = Adapting(GOAL, attachment(), tmp_path, self.said.append, INTERRUPTS)

    def run(self, seconds: float) -> None:
        over = self.world.now + seconds
        while self.world.now < over:
            left = max(0.05, self.adapting.seconds_left(self.world.now))
            self.world.run(min(left, over - self.world.now))
            if self.adapting.seconds_left(self.world.now) > 0:
                continue
            before = len(self.adapting.ways)
            turn = self.adapting.turn()
            if len(self.adapting.ways) != before:
                self.divisions.append((self.world.now, len(self.adapting.ways)))
            self.told += turn.notices if turn else ()
            for wanted in turn.wanted if turn else ():
                part = wanted.part
                for napi_id in FED.values():
                    if part is None or (NETNS, napi_id) in part.napis:
                        self.world.ways[napi_id] = wanted.way
                self.changes.append((self.world.now, str(part or "all"), str(wanted.way)))
                self.adapting.switched(wanted.way, part)


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
