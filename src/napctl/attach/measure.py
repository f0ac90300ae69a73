"""What attachments do right now: one reader of both probes for any number of them, cheap to ask again and again."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from msgspec.structs import replace

from napctl.attach.report import Now, judge, lost_settings, suspended_between
from napctl.change.recovery import alive
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import NapiChange, Transaction
from napctl.model.suspensioncounts import SuspensionCounts
from napctl.model.window import Window
from napctl.observe.window import Observer
from napctl.probe import ProbeUnavailable
from napctl.probe.suspension import SuspensionProbe


class Meter:
    """Windows of attachments, one after the other. A context manager.

    It reads counters in memory, the settings of the attached NAPI and epoll instances, and no sockets: so it takes the
    same time for ten connections and for ten thousand.
    """

    def __init__(self, transactions: Sequence[Transaction]):
        self._transactions = tuple(transactions)
        self._observers: dict[int, Observer] = {}
        self._open = ExitStack()
        self._probe: SuspensionProbe | None = None
        self._before: tuple[SuspensionCounts, ...] = ()
        self._lost = 0

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

    def read(self) -> list[tuple[Now, Window | None]]:
        """What each attachment did since the last reading (or the start), and the window of its network namespace.

        The window is None where that namespace has gone.
        """
        windows = {inode: observer.window(refresh=False) for inode, observer in self._observers.items()}
        after = self._probe.read() if self._probe else ()
        suspended = suspended_between(self._before, after) if self._probe else None
        lost = self._probe.lost_polls - self._lost if self._probe else 0
        self._before, self._lost = after, self._lost + lost
        if lost:
            words = f"suspensions and waits at {lost:,} polls, of NAPI instances without a place in the probe's table"
            windows = {inode: replace(each, lacks=(*each.lacks, words)) for inode, each in windows.items()}
        found: list[tuple[Now, Window | None]] = []
        for each in self._transactions:
            window = next((windows[netns] for netns in _namespaces(each) if netns in windows), None)
            if not alive(each):
                found.append((Now(verdict="gone", why="its server has ended; `napctl recover` puts back"), window))
            else:
                found.append((judge(each, window, suspended, lost_settings(each), lost), window))
        return found


def measured(transaction: Transaction, seconds: float) -> tuple[Now, Window | None]:
    """What one attachment does in a window that begins now; and that window, None if its network namespace has gone."""
    with Meter([transaction]) as meter:
        meter.restart()
        time.sleep(seconds)
        ((now, window),) = meter.read()
    return now, window


def _namespaces(transaction: Transaction) -> list[int]:
    changes = (change for change in transaction.changes if isinstance(change, NapiChange))
    return list(dict.fromkeys(change.netns for change in changes))
