"""Totals over months, from the windows between readings. Pure: no input or output.

What a window shows to have fallen is left out: a total never falls, and never grows by what nobody counted.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from napctl.model.counts import CpuCounts, DeviceCounts
from napctl.model.finding import Finding
from napctl.model.histogram import EMPTY, Histogram
from napctl.model.latency import NOTHING, LatencyHistogram, ProcessLatency, latency_between
from napctl.model.overload import LEVELS, Level, PacketLoad, overloaded
from napctl.model.snapshot import FoundRule, InterfaceTotals, OverloadTotals, PollTotals, SuspensionTotals
from napctl.model.suspension_counts import SuspensionCounts
from napctl.model.window import EmptyPolls, NapiWindow

__all__ = ["DeviceSums", "NapiSums", "OverloadSums", "TargetSums", "found_rules", "grown_by", "kept"]


Key = TypeVar("Key")
Sums = TypeVar("Sums")
MOST_KEPT = 256
"""Devices that have gone, or targets that are no more in the policy, whose totals are kept in case they come back."""


@dataclass
class NapiSums:
    """Of one NAPI instance, or of all of a device's."""

    polls: PollTotals = field(default_factory=PollTotals)
    suspension: SuspensionTotals = field(default_factory=SuspensionTotals)
    interrupts: int | None = None

    def add(self, window: NapiWindow, suspended: SuspensionCounts | None) -> None:
        """What came in a window."""
        polls = _polls(window)
        if polls is not None:
            self.polls += polls
        if suspended is not None and suspended.packets + suspended.arms + suspended.suspended_ns:
            self.suspension += _suspension(suspended)
        if window.irq is not None:
            self.interrupts = (self.interrupts or 0) + (window.interrupts or 0)


@dataclass
class DeviceSums(NapiSums):
    """Of one device."""

    interface: InterfaceTotals = field(default_factory=InterfaceTotals)

    def add_interface(self, counts: DeviceCounts) -> None:
        """What its driver counted in a window."""
        names = InterfaceTotals.__struct_fields__
        self.interface += InterfaceTotals(**{name: getattr(counts, name) or 0 for name in names})


@dataclass
class TargetSums:
    """Of one target."""

    cpu_seconds: float = 0.0
    polls: int = 0
    packets: int = 0
    until_read: LatencyHistogram = NOTHING
    until_reply: LatencyHistogram = NOTHING
    ran: Mapping[int, float] = field(default_factory=dict)
    """CPU time of each process at the last reading, s."""

    def add_ran(self, ran: Mapping[int, float]) -> None:
        """CPU time by process until now; of a process that is new only what comes from now on."""
        self.cpu_seconds += sum(max(0.0, now - self.ran.get(pid, now)) for pid, now in ran.items())
        self.ran = ran

    def add_latency(
        self, before: Collection[ProcessLatency], after: Collection[ProcessLatency], pids: Collection[int]
    ) -> None:
        """What came between two readings, of these processes."""
        then = [each for each in before if each.pid in pids]
        now = [each for each in after if each.pid in pids]
        for each in latency_between(then, now):
            if min(each.until_read.counts) >= 0 and min(each.until_reply.counts) >= 0:
                self.until_read += each.until_read
                self.until_reply += each.until_reply


@dataclass
class OverloadSums:
    """Of the machine."""

    seconds: dict[Level, float] = field(default_factory=lambda: dict.fromkeys(LEVELS, 0.0))
    late: float | None = None

    def add(self, load: PacketLoad) -> None:
        """What came between two readings."""
        for each in overloaded(load):
            self.seconds[each.level] += load.seconds
        if load.late_drops_per_second is not None:
            self.late = (self.late or 0.0) + load.late_drops_per_second * load.seconds

    def totals(self) -> OverloadTotals:
        """Until now."""
        return OverloadTotals(seconds=dict(self.seconds), late_drops=None if self.late is None else round(self.late))


def grown_by(cpus: Iterable[CpuCounts], name: str) -> int | None:
    """The sum of a field over the CPUs that were there from beginning to end; None if no CPU tells it."""
    told = [value for cpu in cpus if (value := getattr(cpu, name)) is not None]
    return sum(told) if told else None


def kept(sums: Mapping[Key, Sums], there: Collection[Key]) -> dict[Key, Sums]:
    """Those of what is there, and the newest others, oldest first."""
    away = [key for key in sums if key not in there][-MOST_KEPT:]
    return {key: sums[key] for key in (*away, *(key for key in sums if key in there))}


def found_rules(findings: Iterable[Finding], devices: Collection[str]) -> tuple[FoundRule, ...]:
    """How often each rule found its fault on each device, in the order of the findings."""
    counts = Counter((each.rule, _device(each.where, devices), each.severity) for each in findings)
    return tuple(
        FoundRule(rule=rule, device=device, severity=severity, count=count)
        for (rule, device, severity), count in counts.items()
    )


def _device(where: str, devices: Collection[str]) -> str:
    """The device that `where` names; "" if it names none of these."""
    words = set(re.split(r"[\s,()]+", where))
    return next((device for device in devices if device in words), "")


def _polls(window: NapiWindow) -> PollTotals | None:
    """None where no probe counted, or where counts fell."""
    parts = (window.softirq, window.thread, window.busy_poll, window.netpoll)
    softirq, thread, busy_poll, netpoll = (part or EMPTY for part in parts)
    if all(part is None or part == EMPTY for part in parts) or any(map(_fell, (softirq, thread, busy_poll, netpoll))):
        return None
    return PollTotals(
        softirq=softirq,
        thread=thread,
        busy_poll=busy_poll,
        netpoll=netpoll,
        empty=window.empty or EmptyPolls(),
    )


def _fell(histogram: Histogram) -> bool:
    return histogram.packets_above < 0 or min(histogram.counts) < 0


def _suspension(counts: SuspensionCounts) -> SuspensionTotals:
    if min(counts.suspensions, counts.timeouts, counts.suspended_ns, *counts.waits) < 0:
        return SuspensionTotals()
    return SuspensionTotals(
        suspensions=counts.suspensions,
        rescues=counts.timeouts,
        suspended_ns=counts.suspended_ns,
        waits=counts.waits,
    )
