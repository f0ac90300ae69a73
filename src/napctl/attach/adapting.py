"""The loop around the controller: windows of an attachment that stands, what they make it decide, and what it learns.

It changes nothing itself: who owns the attachment asks it when it is time, switches, and tells it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from dataclasses import replace as but
from operator import sub
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from napctl.adapt.controller import SETTLE_SECONDS, WINDOW_SECONDS, Decision, State, decide, limit_ns, start
from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import INTERRUPTS, Way, WayWindow
from napctl.attach.follow_step import NapiKey
from napctl.attach.learned_file import identity_of, keep_learned, kept_learned
from napctl.attach.packet_cost import Cost, CostProbe, CostReading, cost_between
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.model.change import EpollChange, NapiChange, SocketChange, Transaction
from napctl.model.errors import BadInput
from napctl.model.latency import LatencyHistogram, ProcessLatency
from napctl.probe import ProbeUnavailable
from napctl.probe.latency import LatencyProbe

__all__ = ["Adapting", "unmeasured"]


DOZE_SECONDS = 1.0
"""Between two looks at a server that idles."""
IDLE_PER_SECOND = 100.0
"""Packets for each NAPI instance, below which it does: nothing can be told then, and nothing is to be gained."""
ANOTHER_LOAD = 1.4
"""Ratio of packets a second within a window, from which it is given up."""
SETTLED_WINDOWS, SETTLED_SECONDS = 8, 2.0
"""So many windows at one load without a change, after which they are as long, unless"""
HURRIED_WINDOWS = 8
"""so many or fewer have just broken the budget."""
GLANCE_SLACK = 0.1
"""A window that is nearly as long as it should be, is."""
KEEP_SECONDS = 300.0
"""Between two times that what was learned is written to disk."""
UNSEEN_PACKETS, UNSEEN_WINDOWS = 1_000, 6
"""So many packets in so many windows without a single sample: the server does not read by recv."""


@dataclass(frozen=True)
class _Window:
    """Where one began."""

    cost: CostReading
    latency: LatencyHistogram | None
    seconds: float
    """How long it is to be."""
    again: bool = False
    """It is in the place of one that was given up, and is not given up itself."""


@dataclass(frozen=True)
class _Glance:
    """At the packets alone."""

    at: float
    packets: int
    per_second: float

    def next(self, at: float, packets: int) -> "_Glance":
        return _Glance(at, packets, (packets - self.packets) / max(at - self.at, 1e-3))

    def differs(self, other: "_Glance") -> bool:
        """Whether that is another load."""
        rates = sorted((self.per_second, other.per_second))
        return rates[1] > ANOTHER_LOAD * rates[0]


class Adapting:
    """Of one attachment. `say` receives what is to be told once. Raises ProbeUnavailable if nothing can be measured."""

    def __init__(self, goal: LatencyGoal, transaction: Transaction, directory: Path, say: Callable[[str], None]):
        self._goal, self._directory, self._say = goal, directory, say
        self._napis, self._servers = _napis(transaction), _servers(transaction)
        self.way = INTERRUPTS
        """That is in force."""
        with ExitStack() as undo:
            self._cost = undo.enter_context(CostProbe(self._servers | _threads(transaction)))
            self._latency = self._loaded_latency(undo)
            self._open = undo.pop_all()
        learned, lost = kept_learned(directory, _identity(transaction))
        if lost:
            say(lost)
        self._state: State = start(self.way, learned)
        self._window: _Window | None = None
        """None: it is to begin."""
        self._glance = _Glance(time.monotonic(), 0, 0.0)
        self._unseen = 0
        self._over = 0
        """Windows, one after the other, that broke the budget."""
        self._kept_at = time.monotonic()
        self._due_at = self._kept_at + SETTLE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """What was learned is kept."""
        self._keep()
        self._open.close()

    @property
    def tries(self) -> bool:
        """Whether the way in force is on trial, so that nothing else should disturb what is measured."""
        return self._state.trial is not None

    def seconds_left(self, now: float) -> float:
        """Until turn() is due, of time.monotonic()."""
        return max(0.0, self._due_at - now)

    def follow(self, transaction: Transaction) -> None:
        """It has other parts now, or has had a part made anew: what the window at hand has seen does not count."""
        self._napis, self._servers = _napis(transaction), _servers(transaction)
        self._cost.follow(self._servers | _threads(transaction))
        if self._latency is not None:
            for pid in self._servers:
                self._latency.add(pid)
        self._begin_in(0.0)

    def switched(self, way: Way) -> None:
        """What turn() asked for has been tried, and this way is in force."""
        self.way = way
        self._begin_in(SETTLE_SECONDS)

    def turn(self) -> Decision | None:
        """When it is due: what a window says that has ended; None while it goes on, or where it says nothing."""
        now = time.monotonic()
        if now - self._kept_at >= KEEP_SECONDS:
            self._keep()
        if not (self._napis and self._servers):
            self._due_at = now + DOZE_SECONDS
            return None
        before, self._glance = self._glance, self._glance.next(now, self._cost.packets(self._napis))
        window, idles = self._window, self._idles()
        self._due_at = now + (DOZE_SECONDS if idles else WINDOW_SECONDS)
        if idles:
            self._window = None
        elif window is None:
            self._window = self._begun()
        elif self._glance.differs(before) and not window.again:
            self._window = but(self._begun(), again=True)  # it has seen two loads, which are none
        elif now - window.cost.at >= window.seconds - GLANCE_SLACK:
            ended = self._begun()
            decision = self._decided(window, ended)
            self._window = but(ended, seconds=self._length())
            return decision
        return None

    def _idles(self) -> bool:
        return self._glance.per_second < IDLE_PER_SECOND * len(self._napis) and self._state.trial is None

    def _begun(self) -> "_Window":
        latency = _until_read(self._latency.read()) if self._latency else None
        return _Window(self._cost.read(self._napis), latency, self._length())

    def _length(self) -> float:
        """Half a second; longer where there is nothing to hurry for, as each window costs as much."""
        hurry = self._state.trial or len(self._state.recent) < SETTLED_WINDOWS or 0 < self._over <= HURRIED_WINDOWS
        return WINDOW_SECONDS if hurry else SETTLED_SECONDS

    def _decided(self, window: "_Window", now: "_Window") -> Decision:
        cost = cost_between(window.cost, now.cost)
        seen = self._seen(cost, _between(window.latency, now.latency))
        over = seen.p99_ns is not None and seen.p99_ns > limit_ns(self._state, self._goal)
        self._over = self._over + 1 if over else 0
        decision = decide(self._state, seen, self._goal)
        self._state = decision.state
        return decision

    def _begin_in(self, seconds: float) -> None:
        self._window = None
        self._due_at = time.monotonic() + seconds

    def _seen(self, cost: Cost, latency: LatencyHistogram | None) -> WayWindow:
        instances = max(1, sum(bool(each.packets) for each in cost.napis.values()))
        seen = WayWindow(
            way=self.way, seconds=cost.seconds, at=cost.at, packets=cost.packets, cpu_seconds=cost.cpu_seconds,
            p99_ns=None, p50_ns=None, samples=0, instances=instances,
        )  # fmt: skip
        if self._latency is not None:
            self._look_for_samples(cost, latency)
        if self._latency is None:
            p99_us, p50_us = (cost.waits.wait_percentile_us(each) if cost.waits else None for each in (0.99, 0.5))
            return replace(
                seen,
                p99_ns=None if p99_us is None else p99_us * 1000,
                p50_ns=None if p50_us is None else p50_us * 1000,
                samples=cost.packets,
                until_poll_only=True,
            )
        if latency is None:
            return seen
        p99_ns, p50_ns = latency.percentile_ns(0.99), latency.percentile_ns(0.5)
        return replace(seen, p99_ns=p99_ns, p50_ns=p50_ns, samples=latency.samples)

    def _look_for_samples(self, cost: Cost, latency: LatencyHistogram | None) -> None:
        """A server that reads by other means is judged by the wait for a poll."""
        none = latency is None or not latency.samples
        self._unseen = self._unseen + 1 if none and cost.packets >= UNSEEN_PACKETS else 0
        if self._unseen >= UNSEEN_WINDOWS:
            self._say("the server does not read by recv, so its latency is not seen; adapting by the wait for a poll")
            self._latency = None

    def _loaded_latency(self, undo: ExitStack) -> LatencyProbe | None:
        try:
            return undo.enter_context(LatencyProbe.load(self._servers))
        except ProbeUnavailable as error:
            self._say(f"server-side latency cannot be measured: {error.reason}; adapting by the wait for a poll")
            return None

    def _keep(self) -> None:
        self._kept_at = time.monotonic()
        try:
            keep_learned(self._directory, self._state.learned)
        except (OSError, BadInput) as error:
            self._say(f"what was learned cannot be kept: {error}")


def _until_read(processes: Sequence[ProcessLatency]) -> LatencyHistogram:
    """Of all together."""
    counts = zip(*(each.until_read.counts for each in processes), strict=True)
    return LatencyHistogram(counts=tuple(map(sum, counts))) if processes else LatencyHistogram()


def _between(before: LatencyHistogram | None, after: LatencyHistogram | None) -> LatencyHistogram | None:
    """None where there is none, or counts of a process were given up meanwhile."""
    if before is None or after is None:
        return None
    counts = tuple(map(sub, after.counts, before.counts))
    return LatencyHistogram(counts=counts) if min(counts) >= 0 else None


def unmeasured(goal: LatencyGoal) -> Way:
    """What is kept where nothing can be measured: the longest timer within the budget, else the shortest."""
    timers = [each for each in goal.ways if each.gro_flush_timeout_ns]
    kept = [each for each in timers if (each.gro_flush_timeout_ns or 0) <= goal.budget_ns]
    return kept[-1] if kept else timers[0]


def _napis(transaction: Transaction) -> frozenset[NapiKey]:
    return frozenset((each.netns, each.napi_id) for each in transaction.changes if isinstance(each, NapiChange))


def _servers(transaction: Transaction) -> frozenset[int]:
    """Pids, also of who is only known by its descriptor."""
    changes = (each for each in transaction.changes if isinstance(each, EpollChange | SocketChange))
    return frozenset(holder.pid for each in changes for holder in each.holders)


def _devices(transaction: Transaction) -> Iterator[tuple[NetworkNamespace, NapiChange]]:
    changes = (each for each in transaction.changes if isinstance(each, NapiChange))
    for change in {(each.netns, each.ifindex): each for each in changes}.values():
        netns = NetworkNamespace.find(change.netns)
        if netns is not None:
            with netns:
                yield netns, change


def _threads(transaction: Transaction) -> frozenset[int]:
    """Pids of the NAPI threads, where there are such."""
    found: set[int] = set()
    napis = _napis(transaction)
    for netns, change in _devices(transaction):
        with suppress(OSError), Netdev(netns) as netdev:
            there = netdev.napis(change.ifindex)
            found |= {each.thread_pid for each in there if each.thread_pid and (netns.inode, each.napi_id) in napis}
    return frozenset(found)


def _identity(transaction: Transaction) -> str:
    drivers: set[str] = set()
    for netns, change in _devices(transaction):
        with EthtoolIoctl(netns) as ioctl:
            driver = ioctl.driver(change.device)
        drivers.add(driver[0] if driver else "unknown driver")
    return identity_of(transaction.pid, transaction.name, "+".join(sorted(drivers)))
