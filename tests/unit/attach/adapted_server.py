"""A made-up server of several NAPI instances, and what its probes tell, for what adapts it in groups."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import INTERRUPTS, Way
from napctl.attach import adapting as module
from napctl.attach import window_probes
from napctl.attach.adapting import Adapting
from napctl.attach.follow_step import NapiKey
from napctl.attach.packet_cost import CostReading, PartReading
from napctl.model.change import Transaction
from napctl.model.latency import BOUNDS_NS, LatencyHistogram, ProcessLatency
from napctl.model.suspension_counts import WAIT_BUCKETS, SuspensionCounts
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
