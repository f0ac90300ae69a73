"""What an attachment does right now: measured in a window after the fact, never assumed."""

from collections.abc import Iterable, Mapping, Sequence

from napctl.change.recovery import running
from napctl.kernel import epoll, processes, system
from napctl.kernel.epollinstances import copy_of_epoll
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.model.change import EpollChange, NapiChange, Restored, SocketChange, Transaction
from napctl.model.fitness import Fitness
from napctl.model.histogram import total
from napctl.model.machine import SCHEMA
from napctl.model.suspensioncounts import SuspensionCounts
from napctl.model.timer import TimerChoice
from napctl.model.value import Value
from napctl.model.window import Window, own_polls

FEW_POLLS = 20
"""Below this number of polls that found packets nothing can be told."""
OWN_PER_FRUITFUL = 0.1
"""A server that waits in epoll polls once for every time it found events; one that never does is at 0."""
STARVED_PER_SECOND = 2
"""From so many rescues by the suspend timer a second, packets wait for it. A server that pauses now and then (a log to
rotate, a garbage to collect) is rescued once each time."""


class Now(Value, frozen=True, kw_only=True):
    """What an attachment did in a window. Shares are 0 … 1; None: not measured, or too little traffic to tell."""

    verdict: str
    """"active", "not active", "starving", "quiet", "not measured", "gone"."""
    why: str = ""
    """A clause, where the verdict needs one."""
    server_poll_share: float | None = None
    """Share of the NAPI instances' polls that the attached processes made themselves."""
    server_packet_share: float | None = None
    """Share of their packets that they found by polling themselves: near 1 under heavy load, less under light."""
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
    window: Window | None
    """None: no window was asked for."""
    warnings: tuple[str, ...]
    """What may go wrong with this attachment: one sentence each."""
    recovered: tuple[Restored, ...]
    """What was put back first: settings of interrupted operations and of servers that have ended."""


class Standing(Now, frozen=True, kw_only=True):
    """One attachment, and what it does right now."""

    transaction: Transaction
    kept_by: int | None
    """The napctl that keeps it attached (`--stay`, `run`); None: it stays until somebody detaches."""


def judge(
    transaction: Transaction,
    window: Window | None,
    suspended: Mapping[tuple[int, int], SuspensionCounts] | None = None,
    lost: str = "",
    uncounted: int = 0,
) -> Now:
    """From a window, the difference of two readings of the suspension probe, and lost_settings().

    `uncounted`: polls for whose NAPI instance the suspension probe had no place, so that what it lacks is not 0.
    Active means: the processes poll their NAPI instances themselves whenever they have work.
    """
    if window is None or window.source != "bpf" or not system.in_initial_pid_namespace():
        return Now(verdict="not active", why=lost) if lost else Now(verdict="not measured")
    napis = only(window, transaction).napis
    polls = total(napi.polls for napi in napis)
    own = [own_polls(napis, pid) for pid in attached_pids(transaction)]
    own_count, own_packets = sum(each.polls for each in own), sum(each.packets for each in own)
    fruitful, seconds = polls.polls - polls.empty, window.seconds
    interrupts = [napi.interrupts for napi in napis if napi.interrupts is not None]
    if uncounted and any(key not in (suspended or {}) for key in _napis(transaction)):
        suspended = None
    figures = _suspension_figures(transaction, suspended, seconds)
    nameless = sum(napi.busy_poll.polls for napi in napis if napi.busy_poll)
    nameless -= sum(poller.polls for napi in napis for poller in napi.pollers)
    timeouts = figures.get("timeouts_per_second") or 0
    if lost:
        verdict, why = "not active", lost
    elif timeouts >= STARVED_PER_SECOND:
        verdict = "starving"
        why = f"the suspend timer had to rescue packets {timeouts:.0f} times a second, each of which waited until then"
    elif fruitful < FEW_POLLS:
        verdict, why = "quiet", "too little traffic to tell"
    elif own_count >= OWN_PER_FRUITFUL * fruitful:
        verdict, why = "active", ""
    elif own_count + nameless >= OWN_PER_FRUITFUL * fruitful:
        verdict, why = "not measured", "who made the busy polls found no place in the probe's table"
    elif any(isinstance(change, EpollChange | SocketChange) for change in transaction.changes):
        verdict, why = "not active", "it does not poll"
    else:
        verdict, why = "not active", "none of its epoll instances is attached yet"
    told = fruitful >= FEW_POLLS and verdict != "not measured"
    return Now(
        verdict=verdict,
        why=why,
        server_poll_share=own_count / polls.polls if told else None,
        server_packet_share=own_packets / polls.packets if told else None,
        empty_poll_share=polls.empty_share,
        packets_per_second=polls.packets / seconds,
        interrupts_per_second=sum(interrupts) / seconds if interrupts else None,
        lacks=window.lacks,
        **figures,
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


def suspended_between(
    before: Sequence[SuspensionCounts], after: Sequence[SuspensionCounts]
) -> dict[tuple[int, int], SuspensionCounts]:
    """What came between two readings of one suspension probe, by network namespace and NAPI id."""
    earlier = {(each.netns, each.napi_id): each for each in before}
    found = {(each.netns, each.napi_id): each for each in after}
    return {key: each - earlier[key] if key in earlier else each for key, each in found.items()}


def attached_pids(transaction: Transaction) -> tuple[int, ...]:
    """Processes whose epoll instances or sockets it made poll; the one attached to if it changed none."""
    pids: set[int] = set()
    for change in transaction.changes:
        pids |= {each.pid for each in change.holders} if isinstance(change, EpollChange | SocketChange) else set()
    return tuple(sorted(pids)) or (transaction.pid,)


def only(window: Window, transaction: Transaction) -> Window:
    """The window of the attached NAPI instances alone."""
    ours = set(_napis(transaction))
    fields = {name: getattr(window, name) for name in Window.__struct_fields__}
    return Window(**fields | {"napis": tuple(napi for napi in window.napis if (napi.netns, napi.napi_id) in ours)})


def lost_settings(transaction: Transaction) -> str:
    """What is no longer as it was attached, in a clause; "" if everything is."""
    lost = (_lost_epoll(each) for each in transaction.changes if isinstance(each, EpollChange))
    return next((why for why in lost if why), "") or _lost_napis(transaction)


def _lost_epoll(change: EpollChange) -> str:
    place = next((each for each in change.holders if running(each)), None)
    if place is None:
        return ""  # a worker has gone; the others are told of
    try:
        with processes.Handle(place.pid) as handle, copy_of_epoll(handle, place.fd) as copy:
            same = epoll.params(copy) == change.after
            return "" if same else f"{change.where} has other parameters than it was given"
    except PermissionError:
        return ""  # who polls is seen all the same
    except OSError:
        return f"{change.where} has been closed"


def _lost_napis(transaction: Transaction) -> str:
    for inode in {change.netns for change in transaction.changes if isinstance(change, NapiChange)}:
        netns = NetworkNamespace.find(inode)
        if netns is None:
            return "its network namespace has gone"
        with netns, Netdev(netns) as netdev:
            there = {napi.napi_id: napi.settings for napi in netdev.napis()}
        for change in transaction.changes:
            if isinstance(change, NapiChange) and change.netns == inode:
                now = there.get(change.napi_id)
                if now is None:
                    return f"{change.where} is no more: the device was reset, or is down"
                if any(getattr(now, name) != value for name, value in _set(change)):
                    return f"{change.where} has lost its settings, or somebody else has set them"
    return ""


def _set(change: NapiChange) -> Iterable[tuple[str, object]]:
    names = change.after.__struct_fields__
    return ((name, value) for name in names if (value := getattr(change.after, name)) is not None)


def several_queues(transaction: Transaction) -> list[str]:
    """A warning for each device of which only some NAPI instances are attached: connections of the others would mix.

    An epoll instance follows one NAPI id; sockets of another wait for the suspend timer.
    """
    changes = [change for change in transaction.changes if isinstance(change, NapiChange)]
    words = []
    for ifindex, device, inode in sorted({(change.ifindex, change.device, change.netns) for change in changes}):
        netns = NetworkNamespace.find(inode)
        if netns is None:
            continue
        with netns, Netdev(netns) as netdev:
            there = len(netdev.napis(ifindex))
        ours = sum(change.ifindex == ifindex for change in changes)
        if there > ours:
            words.append(
                f"{device} has {there} NAPI instances, {ours} attached; a later connection that comes over another one "
                "may wait as long as irq-suspend-timeout, unless the server keeps each in an epoll instance of its own"
            )
    return words


def _napis(transaction: Transaction) -> list[tuple[int, int]]:
    return [(change.netns, change.napi_id) for change in transaction.changes if isinstance(change, NapiChange)]
