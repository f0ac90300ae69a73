"""What of a poller's 100 % is work: by its own account, or at most, from packets and its busiest window. Pure.

The bound. A thread that polls uses its CPU whatever comes, so CPU time says nothing; but when it was busiest, it cannot
have spent more on each packet than all the time that it had. So the work of X packets is at most X times that. Three
things are taken for granted, and a program for which one does not hold is told too low:

- its work comes with packets, in or out;
- a packet never costs more than all the time that there was for one in the busiest window. A poller that keeps up takes
  packets as they come, few at a time, and has time left: then that holds. One that cannot keep up takes them in full
  bursts, cheaper each: windows in which it is seen to lose packets are left out. Between the two, where it keeps up by
  longer bursts alone, the bound is too low by what these save;
- no packet costs more than DEAREST_NS, which says something at rest, before any busy window was seen.

How loose it is depends on how busy it was at its busiest: there is no other way from outside. (Sampling by perf without
a performance monitoring unit told 2.1 % where the truth was 10.0 %: measured.)
"""

from collections.abc import Mapping

from napctl.census.pollers.spinning import ThreadTimes
from napctl.model.value import Value

__all__ = [
    "BETTER",
    "LEAST_PACKETS",
    "Busiest",
    "MostWork",
    "bound",
    "busier",
    "busy_window",
    "run_seconds",
    "told_share",
]


DEAREST_NS = 100_000.0
COLD, DEARER = 0.1, 2.0
"""Packets that come alone find cold caches, and cost up to three times as much (measured: 1.7 times, and 2.01 where
others had half of its CPU), but not more than so much of a CPU in all."""
AT_REST = 0.05
"""Up to so much, the bound from DEAREST_NS says something."""
LEAST_PACKETS = 1000
"""In a window with fewer no cost of a packet means anything."""
BETTER = 0.98
"""A window is kept only if it says more than the one that is kept."""


class Busiest(Value, frozen=True, kw_only=True):
    """The window in which a poller had the least CPU time for each packet."""

    packets_per_second: float
    cpu_ns_per_packet: float
    """Of all its threads together."""


class MostWork(Value, frozen=True, kw_only=True):
    """What of a CPU can have been work at most, and what that stands on."""

    share: float
    cost_ns: float
    """That a packet costs at most."""
    calibrated: bool
    """By its own busiest window; else by what no packet costs."""


def told_share(before: tuple[int, int], after: tuple[int, int]) -> float | None:
    """Busy cycles of all cycles between two readings of (busy, all); None if they were set back, or stood still."""
    busy, total = after[0] - before[0], after[1] - before[1]
    return busy / total if 0 <= busy <= total and total > 0 else None


def busy_window(packets: int, seconds: float, run_seconds: float) -> Busiest | None:
    """What a window of so many packets tells; None: too few to mean anything, or each could have cost the most."""
    if packets < LEAST_PACKETS or seconds <= 0 or run_seconds <= 0:
        return None
    cost = run_seconds * 1e9 / packets
    return Busiest(packets_per_second=packets / seconds, cpu_ns_per_packet=cost) if cost < DEAREST_NS else None


def busier(kept: Busiest | None, now: Busiest | None) -> Busiest | None:
    """Which of them to keep."""
    if kept is None or now is None:
        return kept or now
    return now if now.cpu_ns_per_packet < BETTER * kept.cpu_ns_per_packet else kept


def bound(packets: int, seconds: float, run_share: float, busiest: Busiest | None) -> MostWork | None:
    """What of a CPU one thread can have worked at most, `packets` being those of all threads: any of them may have had
    them all. None: no bound yet, as the program has never been busy enough to tell."""
    if seconds <= 0:
        return None
    rate = packets / seconds
    own = None if busiest is None else busiest.cpu_ns_per_packet
    cost = DEAREST_NS if own is None else min(own, DEAREST_NS)
    share = rate * cost / 1e9
    if own is not None and own < DEAREST_NS:
        share += min(DEARER * share, COLD)
    if own is None and share > AT_REST:
        return None
    if share >= run_share:
        return None  # all that it ran: that says nothing
    return MostWork(share=share, cost_ns=cost, calibrated=own is not None and own < DEAREST_NS)


def run_seconds(before: Mapping[int, ThreadTimes], after: Mapping[int, ThreadTimes]) -> float:
    """CPU time of all threads: those that sleep now and then may have had the packets."""
    ran = (now.ran_ns - (before[tid].ran_ns if tid in before else 0) for tid, now in after.items())
    return sum(ran) / 1e9
