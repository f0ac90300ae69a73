"""Whether threads that come after all others get too little of their CPU, or would. Pure.

At nice 19 a thread has what others leave. Those that its packets are for leave it their CPU whenever they wait for more
of them; a program that never waits leaves it 1.4 % (15 parts of 1039: sched_prio_to_weight in kernel/sched/core.c), and
each packet waits for 0.2 s and longer.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from napctl.kernel.sleeps import Sleeps
from napctl.kernel.snmp import Served
from napctl.model.counters import grown
from napctl.model.limits import MOST_NICE
from napctl.model.verdict import LEAST_GOODPUT

__all__ = [
    "HELD_SHARE",
    "UNFAIR_SHARE",
    "WAITS_SHARE",
    "CpuHolder",
    "Goodput",
    "Share",
    "ThreadReading",
    "before_nice",
    "goodput_between",
    "kept",
    "share_between",
    "steady_since",
    "why_it_would",
    "why_starved",
    "with_less_offered",
]


WAITS_SHARE = 0.5
"""Of its time: a thread that waits for longer wants its CPU, and somebody else has it."""
UNFAIR_SHARE = 0.75
"""One as nice as a thread leaves it half of the CPU, two a third. For longer it waits only for what is nice in
a cgroup, or a session (sched(7), autogroup), which has a share of its own, whatever the nice values in it."""
HELD_SHARE = 0.2
"""Of a CPU: who has less without ever waiting keeps no thread from it."""
FORWARDED = "forwarded"
KINDS_OF_GOODPUT = ("read_datagrams", "sent_segments", FORWARDED)
STEADY_SHARE = 0.8
"""Of what is offered now: a look with less, or by so much more, is of another time."""
TELLING_PER_SECOND = 100.0
"""Of one kind: less tells nothing of goodput."""
Goodput = dict[str, float]
"""What reached whom it was for, a second, by kind: fields of Served."""


@dataclass(frozen=True)
class ThreadReading:
    """A NAPI thread, since its start."""

    ran_ns: int
    waited_ns: int
    """In a run queue; a wait counts when it ends."""
    sleeps: Sleeps | None


@dataclass(frozen=True)
class Share:
    """Of its time, 0 … 1."""

    ran: float
    waited: float


@dataclass(frozen=True)
class CpuHolder:
    """A thread that wanted a CPU all the time, and had it for some of it."""

    pid: int
    """Of its process."""
    name: str
    cpu: int
    nice: int
    """Above MOST_NICE: it comes after all others (SCHED_IDLE)."""
    ran: float
    """Share of the time."""
    has_sockets: bool
    """Of the network: packets may be for it, and it has so many to read that it never waits for one."""


def share_between(before: ThreadReading, after: ThreadReading, seconds: float) -> Share:
    """What became of its time. One that never slept has waited whenever it did not run."""
    ran = min(1.0, max(0.0, (after.ran_ns - before.ran_ns) / 1e9 / seconds))
    waited = min(1.0, max(0.0, (after.waited_ns - before.waited_ns) / 1e9 / seconds))
    was, now = before.sleeps, after.sleeps
    never_slept = was is not None and now is not None and not was.now and not now.now and was.times == now.times
    return Share(ran, 1 - ran if never_slept else waited)


def goodput_between(before: Served | None, after: Served | None, seconds: float) -> Goodput:
    """Of kinds that are told."""
    if before is None or after is None:
        return {}
    counts = {kind: grown(getattr(before, kind), getattr(after, kind)) for kind in KINDS_OF_GOODPUT}
    return {kind: count / seconds for kind, count in counts.items() if count is not None}


def steady_since(offered: Sequence[float]) -> int:
    """Of looks with what was offered until each of them, the last one being now: the first since which it was about as
    it is now."""
    first = len(offered) - 1
    least, most = STEADY_SHARE * offered[-1], offered[-1] / STEADY_SHARE
    while first > 0 and least <= offered[first] <= most:
        first -= 1
    return first


def before_nice(over_window: Goodput, steadily: Goodput) -> Goodput:
    """What was served before threads were nice. What is forwarded waits for no process: of a flood of it all counts
    since it is as it is (`steadily`), and nothing before, which would be too little of it."""
    return over_window | {kind: rate for kind, rate in steadily.items() if kind == FORWARDED}


def with_less_offered(before: Goodput, offered_before: float, offered_now: float) -> Goodput:
    """What can still be served of that: of fewer packets no more are forwarded."""
    if FORWARDED not in before or offered_now >= offered_before:
        return before
    return before | {FORWARDED: before[FORWARDED] * offered_now / offered_before}


def kept(before: Goodput, now: Goodput) -> float | None:
    """Which part of the goodput is left, of the kind that lost least: in a flood of one kind others share its ring, and
    lose by that. None: there was too little to tell."""
    left = [now[kind] / before[kind] for kind in before.keys() & now.keys() if before[kind] >= TELLING_PER_SECOND]
    return max(left, default=None)


def why_starved(threads: Iterable[Share], holders: Iterable[CpuHolder], goodput: float | None) -> str:
    """Of threads at nice 19; empty: they are not, or the CPU is in the hands of who their packets are for.

    Who takes their CPU without ever waiting is known; what many programs take between their sleeps is known by what is
    lost. `holders`: on their CPUs. `goodput`: as of kept(), against what it was before they were nice.
    """
    worst = max(threads, key=lambda each: each.waited, default=None)
    if worst is None or worst.waited < WAITS_SHARE:
        return ""
    fell = goodput is not None and goodput < LEAST_GOODPUT
    unfair = worst.waited > UNFAIR_SHARE
    guilty = [each for each in holders if (unfair or each.nice < MOST_NICE) and (fell or not each.has_sockets)]
    is_held = sum(each.ran for each in guilty) >= HELD_SHARE
    if not (fell or is_held):
        return ""
    parts = [f"the packets' thread waited {_percent(worst.waited)} of the time and had {_percent(worst.ran)}"]
    if is_held:
        first = max(guilty, key=lambda each: each.ran)
        parts.insert(0, f"{first.name} ({first.pid}) never waits and had {_percent(first.ran)} of CPU {first.cpu}")
    if fell and goodput is not None:
        parts.append(f"{_percent(goodput)} of what was served before still is")
    return ", ".join(parts)


def why_it_would(cpus: Collection[int] | None, holders: Iterable[CpuHolder]) -> str:
    """Why threads would be starved at nice 19; empty: nothing is known that speaks for it.

    `cpus`: those that they may use; None: not known.
    """
    by_cpu = {each.cpu: each for each in holders if each.nice < MOST_NICE and not each.has_sockets}
    if not cpus or not set(cpus) <= by_cpu.keys():
        return ""
    first = max((by_cpu[cpu] for cpu in cpus), key=lambda each: each.ran)
    return (
        f"{first.name} ({first.pid}) never waits: at nice {MOST_NICE} the packets' thread would have next to none of "
        f"CPU {first.cpu}"
    )


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
