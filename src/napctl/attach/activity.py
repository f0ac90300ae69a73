"""What attachments do right now: one reader of both probes for any number of them, cheap to ask again and again."""

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Self

from msgspec.structs import replace

from napctl.change.io_uring_block import io_uring_block
from napctl.change.recovery import alive
from napctl.change.same_process import running
from napctl.kernel import cpu_time, napi_threads, processes
from napctl.kernel.epoll_instances import params_at
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.running_kernel import in_initial_pid_namespace
from napctl.model.activity import Now, attached_pids, judge
from napctl.model.change import EpollChange, InstanceChange, IoUringChange, NapiChange, Transaction
from napctl.model.latency import LatencySummary
from napctl.model.machine import Napi
from napctl.model.settings import ThreadSettings
from napctl.model.suspension_counts import SuspensionCounts, suspended_between
from napctl.model.window import Window
from napctl.observe.server_latency import LatencyMeter
from napctl.observe.window import Observer
from napctl.probe import ProbeUnavailable
from napctl.probe.suspension import SuspensionProbe

__all__ = ["Meter", "measured"]


class Meter:
    """Windows of attachments, one after the other. A context manager.

    It reads counters in memory, the settings of the attached NAPI and epoll instances, and no sockets: so it takes the
    same time for ten connections and for ten thousand.
    """

    def __init__(self, transactions: Sequence[Transaction], *, latency: bool = True):
        """`latency`: whether the server's latency is wanted; its probe takes most of a second to load."""
        self._transactions, self._with_latency = tuple(transactions), latency
        self._observers: dict[int, Observer] = {}
        self._open = ExitStack()
        self._probe: SuspensionProbe | None = None
        self._before: tuple[SuspensionCounts, ...] = ()
        self._lost = 0
        self._ran: dict[int, _Ran] = {}
        """By transaction, of those that busy poll without suspension."""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            for inode in {netns for each in self._transactions for netns in _namespaces(each)}:
                netns = NetworkNamespace.find(inode)
                if netns is not None:
                    undo.enter_context(netns)
                    self._observers[inode] = undo.enter_context(Observer(netns))
            try:
                self._probe = undo.enter_context(SuspensionProbe.load())
            except ProbeUnavailable:
                self._probe = None  # the Observer says what is missing
            pids = {pid for each in self._transactions for pid in attached_pids(each)}
            self._latency = undo.enter_context(LatencyMeter(pids)) if self._with_latency else None
            self._open = undo.pop_all()
        self.restart()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def restart(self) -> None:
        """Let the next window begin now."""
        for observer in self._observers.values():
            observer.restart()
        self._before = self._probe.read() if self._probe else ()
        self._lost = self._probe.lost_polls if self._probe else 0
        self._ran = {each.number: _ran(each) for each in self._transactions if each.busy_polls}
        if self._latency:
            self._latency.restart()

    def read(self) -> list[tuple[Now, Window | None]]:
        """What each attachment did since the last reading (or the start), and the window of its network namespace.

        The window is None where that namespace has gone.
        """
        windows = {inode: observer.window(refresh=False) for inode, observer in self._observers.items()}
        after = self._probe.read() if self._probe else ()
        suspended = suspended_between(self._before, after) if self._probe else None
        lost = self._probe.lost_polls - self._lost if self._probe else 0
        self._before, self._lost = after, self._lost + lost
        latency = self._latency.window() if self._latency else None
        if lost:
            words = f"suspensions and waits at {lost:,} polls, of NAPI instances without a place in the probe's table"
            windows = {inode: replace(each, lacks=(*each.lacks, words)) for inode, each in windows.items()}
        found: list[tuple[Now, Window | None]] = []
        for each in self._transactions:
            window = next((windows[netns] for netns in _namespaces(each) if netns in windows), None)
            if not alive(each):
                found.append((Now(verdict="gone", why="its server has ended; `napctl recover` puts back"), window))
            else:
                told = window if in_initial_pid_namespace() else None  # else it cannot tell who polled
                now = judge(each, told, suspended, _lost_settings(each), lost)
                seen = latency.only(attached_pids(each)).summary if latency else None
                now = replace(now, busy_cpus=self._busy_cpus(each))
                found.append((_with_latency(now, seen) if seen else now, window))
        return found

    def _busy_cpus(self, transaction: Transaction) -> float | None:
        before = self._ran.get(transaction.number)
        if before is None:
            return None
        after = self._ran[transaction.number] = _ran(transaction)
        return (after.seconds - before.seconds) / max(after.at - before.at, 1e-6)


@dataclass(frozen=True)
class _Ran:
    """CPU time of an attachment's processes, s, at one moment of the monotonic clock."""

    at: float
    seconds: float


def _ran(transaction: Transaction) -> _Ran:
    at, seconds = time.monotonic(), 0.0
    for pid in attached_pids(transaction):
        with suppress(OSError):  # it has ended
            seconds += cpu_time.clock_seconds(pid)
    return _Ran(at, seconds)


def _with_latency(now: Now, latency: LatencySummary) -> Now:
    """Where there is traffic, what could not be told of it is said with the rest."""
    lacks = () if now.verdict == "quiet" else latency.lacks
    return replace(now, latency=latency, lacks=(*now.lacks, *lacks))


def measured(transaction: Transaction, seconds: float) -> tuple[Now, Window | None]:
    """What one attachment does in a window that begins now; and that window, None if its network namespace has gone."""
    with Meter([transaction]) as meter:
        meter.restart()
        time.sleep(seconds)
        ((now, window),) = meter.read()
    return now, window


def _namespaces(transaction: Transaction) -> list[int]:
    changes = (change for change in transaction.changes if isinstance(change, InstanceChange))
    return list(dict.fromkeys(change.netns for change in changes))


def _lost_settings(transaction: Transaction) -> str:
    """What is no longer as it was attached, in a clause; "" if everything is."""
    lost = (_lost_poller(each) for each in transaction.changes if isinstance(each, EpollChange | IoUringChange))
    return next((why for why in lost if why), "") or _lost_napis(transaction)


def _lost_poller(change: EpollChange | IoUringChange) -> str:
    return _lost_epoll(change) if isinstance(change, EpollChange) else _lost_ring(change)


def _lost_ring(change: IoUringChange) -> str:
    if not any(map(running, change.holders)):
        return ""  # as of an epoll instance
    try:
        with io_uring_block(change) as block:
            now = block.read() if block is not None else None
    except OSError:
        return ""  # who polls is seen all the same
    if now is None:
        return f"{change.where} has been closed"
    return "" if now == change.after else f"{change.where} polls otherwise than it was set to"


def _lost_epoll(change: EpollChange) -> str:
    place = next((each for each in change.holders if running(each)), None)
    if place is None:
        return ""  # a worker has gone; the others are told of
    try:
        with processes.Handle(place.pid) as handle:
            now = params_at(handle, place.fd)
    except PermissionError:
        return ""  # who polls is seen all the same
    except ProcessLookupError:
        now = None
    if now is None:
        return f"{change.where} has been closed"
    return "" if now == change.after else f"{change.where} has other parameters than it was given"


def _lost_napis(transaction: Transaction) -> str:
    for inode in {change.netns for change in transaction.changes if isinstance(change, InstanceChange)}:
        netns = NetworkNamespace.find(inode)
        if netns is None:
            return "its network namespace has gone"
        with netns, Netdev(netns) as netdev:
            there = {napi.napi_id: napi for napi in netdev.napis()}
        for change in transaction.changes:
            if isinstance(change, InstanceChange) and change.netns == inode:
                napi = there.get(change.napi_id)
                if napi is None:
                    return f"{change.where} disappeared (device reset, or down)"
                now = napi.settings if isinstance(change, NapiChange) else _thread_of(napi)
                if any(getattr(now, name) != value for name, value in _set(change)):
                    return f"{change.where} lost its settings, or somebody else changed them"
    return ""


def _thread_of(napi: Napi) -> ThreadSettings:
    """Without a thread there is nothing to have a nice value, nor CPUs."""
    nice, cpus = (napi_threads.scheduled(napi.thread_pid) if napi.thread_pid is not None else None) or (None, None)
    return ThreadSettings(threaded=napi.settings.threaded, nice=nice, cpus=cpus)


def _set(change: InstanceChange) -> Iterable[tuple[str, object]]:
    names = change.after.__struct_fields__
    return ((name, value) for name in names if (value := getattr(change.after, name)) is not None)
