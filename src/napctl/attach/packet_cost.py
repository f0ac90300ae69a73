"""What a target's packets cost, and how long they wait for their poll: readings of counters that only grow."""

import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Self

from napctl.attach.follow_step import NapiKey
from napctl.kernel.cpu_time import clock_seconds
from napctl.kernel.machine_stat import machine_stat
from napctl.kernel.running_kernel import in_initial_pid_namespace
from napctl.model.suspension_counts import SuspensionCounts, suspended_between
from napctl.probe import ProbeUnavailable
from napctl.probe.softirq_time import SoftirqTimeProbe
from napctl.probe.suspension import SuspensionProbe

__all__ = ["Cost", "CostProbe", "CostReading", "cost_between"]


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
            self._open = undo.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._suspension.close()
        self._open.close()

    def follow(self, pids: Collection[int]) -> None:
        """These processes from now on."""
        for pid in set(pids) - self._pids:
            self._softirqs.choose(pid)
        for pid in self._pids - set(pids):
            self._softirqs.drop(pid)
        self._pids = set(pids)

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
        return CostReading(time.monotonic(), ran, ns / 1e9, self._suspension.read(napis))

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
