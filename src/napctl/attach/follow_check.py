"""The cheap check of --stay: whether anything has changed about the processes of a target.

It reads no fdinfo of an epoll instance, for which the kernel takes the lock that the server's calls wait for, and
copies no descriptor: it asks for pids, start times, and the number and list of each process's descriptors.
"""

import os
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from napctl.kernel import open_files, processes
from napctl.kernel.processes import PROC, Process

__all__ = ["Pulse"]


LISTING_SHARE = 0.00025
"""Of one CPU that listing descriptors takes at most: 1 µs for each of them."""
LISTING_SECONDS = 5.0
"""Between two lists of all processes while no id was given out: one may have chosen his (newest_pid())."""
MANY = 1000
"""Descriptors. Of a process with more of them nobody asks which of them are sockets: that takes 10 µs for each."""


@dataclass(frozen=True)
class Difference:
    """What is not as it was when it was last looked at."""

    born: frozenset[int] = frozenset()
    """Pids that may belong to the target: children of one of its own, or processes of the same name."""
    ended: frozenset[int] = frozenset()
    connected: frozenset[int] = frozenset()
    """Pids among the new and the unsettled that have got a socket of their own."""
    changed: frozenset[int] = frozenset()
    """Pids of those that have opened or closed something else."""


class Pulse:
    """The processes of a target as they are when this is made, to be compared with what they are later.

    `settled`: pids of those in which there is nothing left to attach. `pids`: of all processes that are not new.
    `by_name`: whether another process of their name belongs to them.
    """

    def __init__(
        self, members: Iterable[Process], settled: frozenset[int] = frozenset(), *, pids: Collection[int] | None = None,
        by_name: bool = False,
    ):  # fmt: skip
        self._members = {each.pid: each for each in members}
        self._first = frozenset(self._members)
        self._names = {each.name for each in self._members.values()} if by_name else set()
        self.settled = settled
        self._pids = set(processes.pids() if pids is None else pids)
        self._newest: int | None = None
        """The newest pid when they were listed last."""
        self._once_more = False
        """Whether ids were given out before the last list: who has the newest may not have been in it yet."""
        self._list_all_at = 0.0
        self._young: set[int] = set()
        """Pids that were new the last time and belonged to nobody: what one is called may come a moment later."""
        self._counts = {pid: _count(pid) for pid in self._members}
        self._sockets = {pid: _sockets(pid) for pid in self._members.keys() - self.settled}
        self._fds: dict[int, list[str] | None] = {}
        self._listing_from = 0.0
        self.listing_seconds = 0.0
        """CPU time that the last take() spent on listing descriptors, which keeps to a share of its own."""
        self._list()

    @property
    def members(self) -> frozenset[int]:
        """Pids of those that still run, and of those that came."""
        return frozenset(self._members)

    @property
    def all_gone(self) -> bool:
        """Whether none of those runs any more that were there when this was made."""
        return not self._first & self._members.keys()

    def take(self) -> Difference:
        """What has changed since the last time."""
        ended = frozenset(pid for pid, each in self._members.items() if not _runs(each))
        for pid in ended:
            del self._members[pid]
            for each in (self._counts, self._sockets, self._fds):
                each.pop(pid, None)
        counts = {pid: _count(pid) for pid in self._members}
        changed = {pid for pid, count in counts.items() if count != self._counts[pid]} | self._list()
        self._counts = counts
        connected = {pid for pid in changed - self.settled if self._gained_a_socket(pid)}
        born = frozenset(self._come())
        connected |= {pid for pid in born if self._has_a_socket_of_its_own(pid)}
        return Difference(born, ended, frozenset(connected), frozenset(changed - connected))

    def _come(self) -> Iterable[int]:
        newest, moment = processes.newest_pid(), time.monotonic()
        given_out = newest is None or newest != self._newest
        if not (given_out or self._once_more or self._young) and moment < self._list_all_at:
            return
        self._newest, self._once_more, self._list_all_at = newest, given_out, moment + LISTING_SECONDS
        now = set(processes.pids())
        new, again, self._pids = now - self._pids, self._young & now, now
        self._young = set(new)
        for pid in sorted((new | again) - self._members.keys()):
            seen = processes.look(pid)
            if seen and not seen.ended and (seen.parent in self._members or seen.process.name in self._names):
                self._members[pid] = seen.process
                self._counts[pid] = _count(pid)
                yield pid

    def _gained_a_socket(self, pid: int) -> bool:
        before, now = self._sockets.get(pid), _sockets(pid)
        self._sockets[pid] = now
        return before is None or now is None or bool(now - before)

    def _has_a_socket_of_its_own(self, pid: int) -> bool:
        """And not only those that it has inherited."""
        now = self._sockets[pid] = _sockets(pid)
        inherited = _sockets(processes.parent(pid) or 0)
        return now is None or inherited is None or bool(now - inherited)

    def _list(self) -> set[int]:
        """Those whose list of descriptors is another by now; nothing before it is time to list them again."""
        self.listing_seconds = 0.0
        if time.monotonic() < self._listing_from:
            return set()
        began = time.process_time()
        now = {pid: _fds(pid) for pid in self._members}
        before, self._fds = self._fds, now
        self.listing_seconds = time.process_time() - began
        self._listing_from = time.monotonic() + self.listing_seconds / LISTING_SHARE
        return {pid for pid, fds in now.items() if pid in before and fds != before[pid]}


def _runs(member: Process) -> bool:
    found = processes.process(member.pid)
    return found is not None and found.started_ticks == member.started_ticks


def _count(pid: int) -> int | None:
    """Descriptors that it has open: the size of /proc/PID/fd since Linux 6.2, 0 before; None if it has gone."""
    try:
        return os.stat(f"{PROC}/{pid}/fd").st_size  # noqa: PTH116 - each second
    except OSError:
        return None


def _fds(pid: int) -> list[str] | None:
    try:
        return os.listdir(f"{PROC}/{pid}/fd")  # noqa: PTH208 - thousands of them
    except OSError:
        return None


def _sockets(pid: int) -> frozenset[int] | None:
    """Inode numbers of its sockets; None if that is too much to ask, or it has gone."""
    try:
        return None if (_count(pid) or 0) > MANY else frozenset(open_files.open_files(pid).sockets.values())
    except OSError:
        return None
