"""The loop around the controller: windows of an attachment that stands, what they make it decide, and what it learns.

It changes nothing itself: who owns the attachment asks it when it is time, switches, and tells it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from operator import sub
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from napctl.adapt.controller import SETTLE_SECONDS, WINDOW_SECONDS, Decision, State, decide, start
from napctl.adapt.pace import WindowSpan, followed, has_ended, next_span
from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import Way, WayWindow
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
KEEP_SECONDS = 300.0
"""Between two times that what was learned is written to disk."""
UNSEEN_PACKETS, UNSEEN_WINDOWS = 1_000, 6
"""So many packets in so many windows without a single sample: the server does not read by recv."""
RENEW_SECONDS = 600.0
"""Between two looks whether a probe is full: to load it anew takes most of a second of CPU time."""


@dataclass(frozen=True)
class _Reading:
    """Of one moment."""

    cost: CostReading
    latency: LatencyHistogram | None


@dataclass(frozen=True)
class _Glance:
    """At the packets alone."""

    at: float
    packets: int
    per_second: float

    def next(self, at: float, packets: int) -> "_Glance":
        return _Glance(at, packets, (packets - self.packets) / max(at - self.at, 1e-3))


class Adapting:
    """Of one attachment that has that way. `say` receives what is to be told once.

    Raises ProbeUnavailable if nothing can be measured.
    """

    def __init__(
        self, goal: LatencyGoal, transaction: Transaction, directory: Path, say: Callable[[str], None], way: Way
    ):
        self._goal, self._directory, self._say = goal, directory, say
        self._napis, self._servers = _napis(transaction), _servers(transaction)
        self.way = way
        """That is in force."""
        learned, lost = kept_learned(directory, _identity(transaction))
        if lost:
            say(lost)
        self._state: State = start(self.way, learned)
        with ExitStack() as undo:
            self._cost = undo.enter_context(CostProbe(self._servers | _threads(transaction)))
            self._latency = self._loaded_latency()
            self._open = undo.pop_all()
        self._renewed_at = time.monotonic()
        self._span: WindowSpan | None = None
        """Of the window at hand; None: it is to begin."""
        self._began: _Reading | None = None
        """What was read then."""
        self._glance = _Glance(time.monotonic(), 0, 0.0)
        self._unseen = 0
        """Busy windows without a sample, one after the other;"""
        self._blind = False
        """so many that the wait for a poll counts, until as many had samples."""
        self._seen_again = 0
        self._kept_at = time.monotonic()
        self._due_at = self._kept_at + SETTLE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """What was learned is kept."""
        self._keep()
        if self._latency is not None:
            self._latency.close()
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
        before, self._napis, self._servers = self._servers, _napis(transaction), _servers(transaction)
        self._cost.follow(self._servers | _threads(transaction))
        if self._latency is not None:
            for pid in self._servers:
                self._latency.add(pid)
            for pid in before - self._servers:
                self._latency.drop(pid)
        self._glance = self._glance_anew()
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
        if now - self._renewed_at >= RENEW_SECONDS:
            self._renew_full()
        if not (self._napis and self._servers):
            self._due_at = now + DOZE_SECONDS
            return None
        before, self._glance = self._glance, self._glance.next(now, self._cost.packets(self._napis))
        span = next_span(self._span, now, before.per_second, self._glance.per_second, tries=self.tries)
        self._due_at = now + (WINDOW_SECONDS if span else DOZE_SECONDS)
        if span is None or span != self._span:
            self._span, self._began = span, self._read() if span else None
        elif has_ended(span, now):
            assert self._began is not None
            before_it, self._began = self._began, self._read()
            decision = self._decided(before_it, self._began)
            self._span = followed(now, self._state, self._goal)
            return decision
        return None

    def _glance_anew(self) -> _Glance:
        """Other counters, which cannot be compared with those before."""
        return _Glance(time.monotonic(), self._cost.packets(self._napis), self._glance.per_second)

    def _read(self) -> "_Reading":
        latency = _until_read(self._latency.read()) if self._latency else None
        return _Reading(self._cost.read(self._napis), latency)

    def _decided(self, before: "_Reading", now: "_Reading") -> Decision:
        cost = cost_between(before.cost, now.cost)
        decision = decide(self._state, self._seen(cost, _between(before.latency, now.latency)), self._goal)
        self._state = decision.state
        return decision

    def _begin_in(self, seconds: float) -> None:
        self._span = None
        self._due_at = time.monotonic() + seconds

    def _seen(self, cost: Cost, latency: LatencyHistogram | None) -> WayWindow:
        instances = max(1, sum(bool(each.packets) for each in cost.napis.values()))
        seen = WayWindow(
            way=self.way, seconds=cost.seconds, at=cost.at, packets=cost.packets, cpu_seconds=cost.cpu_seconds,
            p99_ns=None, p50_ns=None, samples=0, instances=instances,
        )  # fmt: skip
        if self._latency is not None:
            self._look_for_samples(cost, latency)
        if self._latency is None or self._blind:
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
        """A server that reads by other means is judged by the wait for a poll, until it is seen to read by recv."""
        if latency is not None and latency.samples:
            self._unseen, self._seen_again = 0, self._seen_again + 1
        elif cost.packets >= UNSEEN_PACKETS:
            self._unseen, self._seen_again = self._unseen + 1, 0
        if self._unseen >= UNSEEN_WINDOWS:
            self._blind = True
            self._say("the server is not seen to read by recv; adapting by the wait for a poll until it does")
        elif self._seen_again >= UNSEEN_WINDOWS:
            self._blind = False

    def _renew_full(self) -> None:
        """What follows for weeks meets more processes and NAPI instances than the probes have places for.

        One that is full of what is in use would be full again.
        """
        self._renewed_at = time.monotonic()
        try:
            if self._cost.is_full:
                if self._cost.holds_unused(RENEW_SECONDS):
                    self._cost.renew()
                    self._span = None
                else:
                    self._say("there are more NAPI instances than the probe has places for: not all is measured")
            if self._latency is not None and self._latency.is_full:
                if self._latency.holds_unused:
                    fresh = LatencyProbe.load(self._servers)
                    self._latency.close()
                    self._latency, self._span = fresh, None
                elif self._latency.is_full_of_processes:
                    self._say("the server has more processes than the probe has places for: not all are measured")
        except ProbeUnavailable as error:
            self._say(f"a probe is full, and cannot be loaded anew: {error.reason}")
        self._glance = self._glance_anew()

    def _loaded_latency(self) -> LatencyProbe | None:
        try:
            return LatencyProbe.load(self._servers)
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
