"""What an attachment does: from the counts of a window and of the suspension probe to a verdict. And what came of
attaching."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec.structs import replace

from napctl.model.change import InstanceChange, NapiChange, PollerChange, Restored, Transaction
from napctl.model.fitness import Fitness
from napctl.model.histogram import total
from napctl.model.latency import LatencySummary
from napctl.model.machine import SCHEMA
from napctl.model.modes import OF_INSTANCES, Mode, mode_of
from napctl.model.next_best import NextBest
from napctl.model.suspension_counts import SuspensionCounts
from napctl.model.timer_choice import TimerChoice
from napctl.model.value import Value
from napctl.model.window import NapiWindow, Window, own_polls

__all__ = ["Attached", "Now", "Standing", "attached_pids", "judge", "only"]


FEW_POLLS = 20
"""Below this number of polls that found packets nothing can be told."""
OWN_PER_FRUITFUL = 0.1
"""A server that waits in epoll polls once for every time it found events; one that never does is at 0."""
BY_THREADS = 0.5
"""Share of the polls: others may busy poll, too, and take their own."""
STARVED_SHARE, FEW_RESCUES = 0.1, 3
"""From this share of the time that a NAPI instance was left to its suspend timer, its packets wait for that. Measured
with 20 ms on a machine with more to do than CPUs: two queues in one epoll instance 33 to 60 %, a loop that never waits
56 to 96 %, a server that fits 4 % at most: it is rescued once each time that it pauses. Fewer rescues tell only if they
are most of the window. Where it polls at all, those while it was ready to run and had no CPU do not count, as it would
read nothing sooner, up to MOST_SHARE."""
MOST_SHARE = 0.5
"""Whoever is at fault, from here on its packets starve: those of others, as acknowledgements and ssh, are in the same
queue and wait as long, though these may have a CPU."""


class Now(Value, frozen=True, kw_only=True):
    """What an attachment did in a window. Shares are 0 … 1; None: not measured, or too little traffic to tell."""

    verdict: str
    """"active", "not active", "starving", "quiet", "interrupts" (adapting has chosen them), "not measured", "gone"."""
    why: str = ""
    """A clause, where the verdict needs one."""
    server_poll_share: float | None = None
    """Share of the NAPI instances' polls that the attached processes made themselves."""
    server_packet_share: float | None = None
    """Share of their packets that they found by polling themselves: near 1 under heavy load, less under light."""
    thread_packet_share: float | None = None
    """Share of their packets that NAPI threads found."""
    empty_poll_share: float | None = None
    packets_per_second: float | None = None
    interrupts_per_second: float | None = None
    """Of the interrupt lines of these NAPI instances; None where the driver does not tell them."""
    suspensions_per_second: float | None = None
    resumes_per_second: float | None = None
    timeouts_per_second: float | None = None
    """Resumes for which the suspend timer was the reason: packets waited as long as irq-suspend-timeout."""
    suspended_share: float | None = None
    """Of the time, mean over the NAPI instances."""
    wait_p50_us: float | None = None
    """Upper bound of how long half of the packets waited for their poll."""
    wait_p99_us: float | None = None
    busy_cpus: float | None = None
    """CPUs that the attached processes used (1.0 is one), where they busy poll without suspension: what that costs."""
    latency: LatencySummary | None = None
    """Of the attached processes, as their machine sees it; None: nobody looked."""
    starving: tuple[int, ...] = ()
    """Ids of the NAPI instances that the suspend timer had to rescue again and again."""
    lacks: tuple[str, ...] = ()
    """What could not be counted in this window, and why: one sentence each."""


class Attached(Now, frozen=True, kw_only=True):
    """What was set, and who polled in the window after it."""

    schema: int = SCHEMA
    transaction: Transaction
    attach_seconds: float
    """From the first look at the processes until the last setting was read back, without the trials of timers."""
    fitness: Fitness
    timer: TimerChoice
    mode: Mode
    next_best: NextBest | None = None
    """What the mode was chosen from, as suspension does not fit; None: it was asked for, or suspension fits."""
    window: Window | None
    """None: no window was asked for."""
    busy_cpus_before: float | None = None
    """The same while it was looked at, before it was attached."""
    warnings: tuple[str, ...]
    """What may go wrong with this attachment: one sentence each."""
    taken_back: tuple[str, ...] = ()
    """What of it is attached no more, as it starved or was starved."""
    recovered: tuple[Restored, ...]
    """What was put back first: settings of interrupted operations and of servers that have ended."""


class Standing(Now, frozen=True, kw_only=True):
    """One attachment, and what it does right now."""

    mode: Mode
    transaction: Transaction
    kept_by: int | None
    """The napctl that keeps it attached (`--stay`, `run`); None: it stays until somebody detaches."""
    protects: bool = False
    """Against overload, while suspension holds: its tasks take packets when they have time, and the ring drops the
    rest."""
    thread_nice: int | None = None
    """The least nice value of the NAPI threads of its instances; None: not all of these have one, or it does not
    suspend."""


def judge(
    transaction: Transaction,
    window: Window | None,
    suspended: Mapping[tuple[int, int], SuspensionCounts] | None = None,
    lost: str = "",
    uncounted: int = 0,
) -> Now:
    """From a window (None: it cannot tell processes), the difference of two readings of the suspension probe, and what
    is no longer as it was attached.

    `uncounted`: polls for whose NAPI instance the suspension probe had no place, so that what it lacks is not 0.
    Active means: the processes poll their NAPI instances themselves whenever they have work; or their threads do.
    """
    if window is None or window.source != "bpf":
        return Now(verdict="not active", why=lost) if lost else Now(verdict="not measured")
    napis, mode = only(window, transaction).napis, mode_of(transaction.changes)
    polls = total(napi.polls for napi in napis)
    own = [own_polls(napis, pid) for pid in attached_pids(transaction)]
    own_count, own_packets = sum(each.polls for each in own), sum(each.packets for each in own)
    used = {(napi.netns, napi.napi_id) for napi in napis if _polls_itself(napi, attached_pids(transaction))}
    fruitful, seconds = polls.polls - polls.empty, window.seconds
    interrupts = [napi.interrupts for napi in napis if napi.interrupts is not None]
    if uncounted and any(key not in (suspended or {}) for key in _napis(transaction)):
        suspended = None
    figures = _suspension_figures(transaction, suspended, seconds)
    if mode != "suspend":  # then nobody suspends, and nothing is claimed of it
        figures = {name: value for name, value in figures.items() if name.startswith("wait_")}
    threads = total(napi.thread for napi in napis if napi.thread)
    starving = dict(_starving(transaction, suspended or {}, used, seconds))
    if lost:
        verdict, why = "not active", lost
    elif starving:
        verdict = "starving"
        why = _why_starving([each / seconds for each in starving.values()], tuple(starving))
    elif transaction.on_interrupts:
        verdict, why = "interrupts", transaction.switches[-1].why if transaction.switches else "it begins with them"
    elif fruitful < FEW_POLLS:
        verdict, why = "quiet", "too little traffic to tell"
    elif mode in OF_INSTANCES:
        polled = mode == "defer" or threads.polls >= BY_THREADS * polls.polls
        verdict, why = ("active", "") if polled else ("not active", "its NAPI threads do not poll")
    else:
        verdict, why = _by_own_polls(transaction, napis, own_count, fruitful)
    told = fruitful >= FEW_POLLS and verdict != "not measured"
    found = Now(
        verdict=verdict,
        why=why,
        server_poll_share=own_count / polls.polls if told else None,
        server_packet_share=own_packets / polls.packets if told else None,
        thread_packet_share=threads.packets / polls.packets if told else None,
        empty_poll_share=polls.empty_share,
        packets_per_second=polls.packets / seconds,
        interrupts_per_second=sum(interrupts) / seconds if interrupts else None,
        starving=tuple(napi_id for _, napi_id in starving),
        lacks=window.lacks,
    )
    return replace(found, **figures)


def _by_own_polls(
    transaction: Transaction, napis: Sequence[NapiWindow], own_count: int, fruitful: int
) -> tuple[str, str]:
    """What it is called, and why, by the polls that its processes made themselves."""
    nameless = sum(napi.busy_poll.polls for napi in napis if napi.busy_poll)
    nameless -= sum(poller.polls for napi in napis for poller in napi.pollers)
    if own_count >= OWN_PER_FRUITFUL * fruitful:
        return "active", ""
    if own_count + nameless >= OWN_PER_FRUITFUL * fruitful:
        return "not measured", "who made the busy polls found no place in the probe's table"
    return _unpolled(transaction)


def _unpolled(transaction: Transaction) -> tuple[str, str]:
    """What it is called, and why, if its processes do not poll."""
    if transaction.several_ways:
        return "interrupts", "so it was decided for those that take in the most"
    if any(isinstance(change, PollerChange) for change in transaction.changes):
        return "not active", "it does not poll"
    return "not active", "none of its epoll instances is attached yet"


def _polls_itself(napi: NapiWindow, pids: Sequence[int]) -> bool:
    """Whether they poll this instance whenever they have work; a loop that never waits does not, on any machine."""
    own = sum(own_polls([napi], pid).polls for pid in pids)
    return own > 0 and own >= OWN_PER_FRUITFUL * (napi.polls.polls - napi.polls.empty)


def _starving(
    transaction: Transaction,
    suspended: Mapping[tuple[int, int], SuspensionCounts],
    used: Collection[tuple[int, int]],
    seconds: float,
) -> Iterator[tuple[tuple[int, int], int]]:
    """Those that starve, and the rescues that show it. Of what is `used`, its tasks poll it."""
    for change in transaction.changes:
        if isinstance(change, NapiChange) and (key := (change.netns, change.napi_id)) in suspended:
            counts, timeout_ns = suspended[key], change.after.irq_suspend_timeout_ns or 0
            own = counts.timeouts - (counts.without_cpu if key in used else 0)
            for rescues, share in ((counts.timeouts, MOST_SHARE), (own, STARVED_SHARE)):
                if rescues * timeout_ns / 1e9 / seconds >= (share if rescues >= FEW_RESCUES else 0.5):
                    yield key, rescues
                    break


def _why_starving(per_second: Sequence[float], starving: Sequence[tuple[int, int]]) -> str:
    which = ", ".join(str(napi_id) for _, napi_id in starving[:4]) + (" …" if len(starving) > 4 else "")
    return (
        f"packets of NAPI {which} waited {sum(per_second):.0f} times a second until the safety timer "
        "(irq-suspend-timeout) stepped in"
    )


def _suspension_figures(
    transaction: Transaction, suspended: Mapping[tuple[int, int], SuspensionCounts] | None, seconds: float
) -> dict[str, float | None]:
    if suspended is None:
        return {}
    ours = [suspended[key] for key in _napis(transaction) if key in suspended]
    if not ours:
        return {"suspensions_per_second": 0.0, "resumes_per_second": 0.0, "timeouts_per_second": 0.0}
    together = ours[0]
    for each in ours[1:]:
        together = together + each
    return {
        "suspensions_per_second": together.suspensions / seconds,
        "resumes_per_second": together.resumes / seconds,
        "timeouts_per_second": together.timeouts / seconds,
        "suspended_share": min(1.0, together.suspended_ns / 1e9 / seconds / len(ours)),
        "wait_p50_us": together.wait_percentile_us(0.5),
        "wait_p99_us": together.wait_percentile_us(0.99),
    }


def attached_pids(transaction: Transaction) -> tuple[int, ...]:
    """Processes whose epoll instances, sockets or rings it made poll; all of its target if it changed none."""
    pids: set[int] = set()
    for change in transaction.changes:
        pids |= {each.pid for each in change.holders} if isinstance(change, PollerChange) else set()
    return tuple(sorted(pids)) or (transaction.pid, *(each.pid for each in transaction.also))


def only(window: Window, transaction: Transaction) -> Window:
    """The window of the attached NAPI instances alone."""
    ours = set(_napis(transaction))
    fields = {name: getattr(window, name) for name in Window.__struct_fields__}
    return Window(**fields | {"napis": tuple(napi for napi in window.napis if (napi.netns, napi.napi_id) in ours)})


def _napis(transaction: Transaction) -> list[tuple[int, int]]:
    napis = (each for each in transaction.changes if isinstance(each, InstanceChange))
    return list(dict.fromkeys((each.netns, each.napi_id) for each in napis))
