"""What a target's packets cost, and how long they wait for their poll: readings of counters that only grow."""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Self

from napctl.attach.follow_step import NapiKey
from napctl.kernel.cpu_time import clock_seconds
from napctl.kernel.machine_stat import machine_stat
from napctl.kernel.running_kernel import in_initial_pid_namespace
from napctl.model.suspension_counts import SuspensionCounts, suspended_between
from napctl.probe import ProbeUnavailable
from napctl.probe.softirq_parts import SoftirqPartsProbe
from napctl.probe.softirq_time import SoftirqTimeProbe
from napctl.probe.suspension import SuspensionProbe

__all__ = ["Cost", "CostProbe", "CostReading", "cost_between", "costs_of_parts"]


@dataclass(frozen=True)
class PartReading:
    """Of one moment: what in NET_RX softirqs belongs to some of the NAPI instances, and to the processes they feed."""

    napis: frozenset[NapiKey]
    pids: frozenset[int]
    seconds: float
    """In polls of these instances; less what ran on top of these processes, where that is part of their run times."""


@dataclass(frozen=True)
class CostReading:
    """Of one moment."""

    at: float
    """CLOCK_MONOTONIC, s."""
    ran: dict[int, float]
    """Run time of each process, s; one that has ended is left out."""
    softirq_seconds: float
    """In NET_RX softirqs, but for those that are part of these run times."""
    waits: tuple[SuspensionCounts, ...]
    parts: tuple[PartReading, ...] = ()
    """As of divide()."""


@dataclass(frozen=True)
class Cost:
    """Between two readings."""

    seconds: float
    at: float
    """CLOCK_MONOTONIC at its end, s."""
    cpu_seconds: float
    napis: dict[NapiKey, SuspensionCounts]
    """Of those that were polled."""

    @property
    def packets(self) -> int:
        """By all these NAPI instances."""
        return sum(each.packets for each in self.napis.values())

    @property
    def waits(self) -> SuspensionCounts | None:
        """Of all these NAPI instances together; None if none was polled."""
        return reduce(add, self.napis.values()) if self.napis else None


class CostProbe:
    """Of processes and NAPI threads, wherever they run and whatever else does. A context manager.

    The cost is their run time, and NET_RX softirqs of all CPUs. Where softirqs are part of the run time of the task
    below, they count once.
    """

    def __init__(self, pids: Collection[int]) -> None:
        self._pids = set(pids)
        self._counted_apart = any(cpu.irq is not None for cpu in machine_stat().by_cpu.values())
        """Whether tasks' run time is without softirqs (update_rq_clock_task() in kernel/sched/core.c)."""

    def __enter__(self) -> Self:
        """Raises ProbeUnavailable."""
        if not in_initial_pid_namespace():
            raise ProbeUnavailable("napctl is not in the initial PID namespace")
        with ExitStack() as undo:
            self._softirqs = undo.enter_context(SoftirqTimeProbe.load(self._pids))
            self._suspension = SuspensionProbe.load()
            self._softirq_parts: SoftirqPartsProbe | None = None
            self._parts: Sequence[PartReading] = ()
            self._open = undo.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._drop_softirq_parts()
        self._suspension.close()
        self._open.close()

    def follow(self, pids: Collection[int]) -> None:
        """These processes from now on."""
        for pid in set(pids) - self._pids:
            self._softirqs.choose(pid)
        for pid in self._pids - set(pids):
            self._softirqs.drop(pid)
        self._pids = set(pids)

    def divide(self, parts: Sequence[tuple[frozenset[NapiKey], frozenset[int]]]) -> None:
        """Tell apart what these NAPI instances and processes cost, or not any more (no parts). What was read before
        tells of the parts before. Raises ProbeUnavailable: it tells nothing apart then."""
        numbered = [({napi_id for _, napi_id in napis}, pids) for napis, pids in parts]
        self._parts = ()
        if self._softirq_parts is not None:
            self._softirq_parts.choose(numbered)
        elif parts:
            self._softirq_parts = SoftirqPartsProbe.load(numbered)
        self._parts = [PartReading(napis, pids, 0.0) for napis, pids in parts]

    def free_unused(self) -> None:
        """What tells nothing apart costs each softirq a little; to load it anew at each divide() costs much more."""
        if not self._parts:
            self._drop_softirq_parts()

    def _drop_softirq_parts(self) -> None:
        if self._softirq_parts is not None:
            self._softirq_parts.close()
            self._softirq_parts = None

    @property
    def is_full(self) -> bool:
        """Whether some NAPI instance, maybe one of these, has found no place in the probe's table."""
        return self._suspension.is_full

    def holds_unused(self, seconds: float) -> bool:
        """Whether it would have free places if it were loaded anew: of instances that were not polled for so long."""
        return self._suspension.holds_unused(seconds)

    def renew(self) -> None:
        """With an empty table; what was read before cannot be compared with what is read then. Raises
        ProbeUnavailable."""
        fresh = SuspensionProbe.load()
        self._suspension.close()
        self._suspension = fresh

    def packets(self, napis: Collection[NapiKey]) -> int:
        """By these NAPI instances until now: that alone is quick."""
        return self._suspension.packets(napis)

    def read(self, napis: Collection[NapiKey]) -> CostReading:
        """What there was until now, by these NAPI instances."""
        softirqs, ran = self._softirqs.read(), self._ran()
        ns = softirqs.ns if self._counted_apart else softirqs.ns - softirqs.on_chosen_ns
        parts = tuple(self._read_parts())
        return CostReading(time.monotonic(), ran, ns / 1e9, self._suspension.read(napis), parts)

    def _read_parts(self) -> Iterator[PartReading]:
        if self._softirq_parts is not None and self._parts:
            for part, found in zip(self._parts, self._softirq_parts.read(), strict=True):
                ns = found.polled_ns - (0 if self._counted_apart else found.on_ns)
                yield replace(part, seconds=ns / 1e9)

    def _ran(self) -> dict[int, float]:
        found = {}
        for pid in self._pids:
            with suppress(OSError):
                found[pid] = clock_seconds(pid)
        return found


def cost_between(before: CostReading, after: CostReading) -> Cost:
    """What the NAPI instances took, and the processes that were there at both moments."""
    ran = sum(now - before.ran[pid] for pid, now in after.ran.items() if pid in before.ran)
    return Cost(
        seconds=after.at - before.at,
        at=after.at,
        cpu_seconds=ran + after.softirq_seconds - before.softirq_seconds,
        napis=suspended_between(before.waits, after.waits),
    )


def costs_of_parts(before: CostReading, after: CostReading) -> tuple[Cost, ...]:
    """The same for each part, none if a reading tells of other parts. What is no part's, as the backlog of RPS, falls
    to them by their packets: it is in the cost of all, with which theirs are compared."""
    if [(each.napis, each.pids) for each in before.parts] != [(each.napis, each.pids) for each in after.parts]:
        return ()
    together = cost_between(before, after)
    own = []
    for then, now in zip(before.parts, after.parts, strict=True):
        ran = sum(after.ran[pid] - before.ran[pid] for pid in now.pids if pid in before.ran and pid in after.ran)
        own.append(ran + now.seconds - then.seconds)
    rest = (together.cpu_seconds - sum(own)) / max(1, together.packets)
    costs = []
    for part, seconds in zip(after.parts, own, strict=True):
        napis = {key: each for key, each in together.napis.items() if key in part.napis}
        packets = sum(each.packets for each in napis.values())
        costs.append(replace(together, cpu_seconds=seconds + rest * packets, napis=napis))
    return tuple(costs)
