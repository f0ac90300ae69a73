"""Watches NAPI threads that come after all others, or are to: whether they get what their packets need."""

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from napctl.kernel import snmp
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.schedstat import turns
from napctl.kernel.sleeps import sleeps
from napctl.model.overload import LATE_PER_SECOND
from napctl.protect.cpu_holders import CpuHolders
from napctl.protect.groups import Protected
from napctl.protect.ladder import LEAST_PACKETS_PER_SECOND, Flood
from napctl.protect.starved import (
    WAITS_SHARE,
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

__all__ = ["NiceWatch"]


OVER_SECONDS = 0.7
"""A look tells of so long a time, or a little more: of less one wait says nothing."""
BEFORE_SECONDS = 60.0
"""After threads were made nice, for so long: less than before is served later for other reasons, too."""
Key = tuple[int, frozenset[int]]


@dataclass(frozen=True)
class _Look:
    monotonic: float
    threads: dict[int, ThreadReading]
    served: snmp.Served | None
    floods: dict[Key, Flood]
    """Since the look before, by group."""


@dataclass(frozen=True)
class _Before:
    """What was served before threads were nice."""

    monotonic: float
    """When was last looked."""
    goodput: Goodput
    offered: float


class NiceWatch:
    """Of one network namespace, from look to look."""

    def __init__(self, netns: NetworkNamespace, clock: Callable[[], float] = time.monotonic):
        self._netns, self._clock = netns, clock
        self._holders = CpuHolders()
        self._looks: deque[_Look] = deque()
        self._before: dict[Key, _Before] = {}

    def read(self, groups: Sequence[Protected], floods: Sequence[Flood]) -> list[Flood]:
        """What was seen of each group at this look, with why its threads get too little at nice 19, or would."""
        told = [
            group if group.ladder.made or seen.offered_per_second >= LEAST_PACKETS_PER_SECOND else None
            for group, seen in zip(groups, floods, strict=True)
        ]
        if not any(told):
            self._looks.clear()
            return list(floods)
        by_key = {group.key: seen for group, seen in zip(groups, floods, strict=True)}
        before, now = self._look({pid for group in told if group is not None for pid in group.thread_pids}, by_key)
        seconds = now.monotonic - before.monotonic
        goodput = goodput_between(before.served, now.served, seconds) if seconds >= OVER_SECONDS else {}
        former, self._before = self._before, {}
        found = []
        for group, seen in zip(groups, floods, strict=True):
            is_nice = "nice" in group.ladder.made
            last = former.get(group.key, _Before(now.monotonic, {}, 0.0))
            self._before[group.key] = last if is_nice else self._before_nice(group.key, now, goodput) or last
            why = self._starved(group, before, now, goodput) if is_nice else self._would_be(group, seen)
            found.append(replace(seen, starved=why))
        return found

    def _before_nice(self, key: Key, now: _Look, goodput: Goodput) -> _Before | None:
        """By now; None: nothing is known. A flood is seen after two or three looks, which is less than a window."""
        known = [each for each in self._looks if key in each.floods]
        steady = known[steady_since([each.floods[key].offered_per_second for each in known]) :]
        seconds = now.monotonic - steady[0].monotonic
        steadily = goodput_between(steady[0].served, now.served, seconds) if seconds else {}
        served = before_nice(goodput, steadily)
        offered = _mean_offered(steady if steadily else known, key)
        return _Before(now.monotonic, served, offered) if served else None

    def _would_be(self, group: Protected, seen: Flood) -> str:
        drops = bool(group.ladder.made) and seen.late_per_second >= LATE_PER_SECOND
        is_next = "nice" in group.steps and (bool(seen.overload) or drops)
        return why_it_would(_cpus_of(group), self._holders.read()) if is_next else ""

    def _starved(self, group: Protected, before: _Look, now: _Look, goodput: Goodput) -> str:
        shares = list(_shares(group.thread_pids, before, now))
        if max((each.waited for each in shares), default=0.0) < WAITS_SHARE:
            return ""
        then = self._before[group.key]
        looks = [each for each in self._looks if group.key in each.floods]
        offered = _mean_offered(looks, group.key, then.offered)
        served = with_less_offered(then.goodput, then.offered, offered)
        left = kept(served, goodput) if now.monotonic - then.monotonic < BEFORE_SECONDS else None
        return why_starved(shares, _on(_cpus_of(group), self._holders.read()), left)

    def _look(self, pids: Collection[int], floods: dict[Key, Flood]) -> tuple[_Look, _Look]:
        """Now, and the newest one that is old enough, or the oldest."""
        threads = {pid: each for pid in pids if (each := _reading(pid)) is not None}
        now = _Look(self._clock(), threads, snmp.served(self._netns), floods)
        self._looks.append(now)
        while len(self._looks) > 1 and now.monotonic - self._looks[1].monotonic >= OVER_SECONDS:
            self._looks.popleft()
        return self._looks[0], now


def _mean_offered(looks: Sequence[_Look], key: Key, not_whole: float | None = None) -> float:
    """A second, from the first of these looks to the last, as what was served between them. `not_whole`: is taken to be
    offered at a look with drops that nobody may have counted; None: what was counted is."""

    def offered(look: _Look) -> float:
        seen = look.floods[key]
        return seen.offered_per_second if seen.is_whole or not_whole is None else not_whole

    spans = [(now.monotonic - before.monotonic, offered(now)) for before, now in pairwise(looks)]
    seconds = sum(each for each, _ in spans)
    return sum(each * rate for each, rate in spans) / seconds if seconds else offered(looks[-1])


def _shares(pids: Collection[int], before: _Look, now: _Look) -> list[Share]:
    seconds = now.monotonic - before.monotonic
    if seconds < OVER_SECONDS:
        return []
    both = (pid for pid in pids if pid in before.threads and pid in now.threads)
    return [share_between(before.threads[pid], now.threads[pid], seconds) for pid in both]


def _reading(pid: int) -> ThreadReading | None:
    times = turns(pid)
    return None if times is None else ThreadReading(times.ran_ns, times.waited_ns, sleeps(pid))


def _cpus_of(group: Protected) -> frozenset[int] | None:
    """That its threads may use and that are online."""
    pids = group.thread_pids
    if not pids:
        return None
    try:
        return frozenset().union(*(os.sched_getaffinity(pid) for pid in pids))
    except OSError:  # gone, or in another PID namespace
        return None


def _on(cpus: frozenset[int] | None, holders: Sequence[CpuHolder]) -> list[CpuHolder]:
    return [each for each in holders if cpus is None or each.cpu in cpus]
