"""The guard: a process of its own that puts a transaction back unless it is confirmed in time.

Forked before anything is changed, in a session of its own without a terminal, it outlives a broken ssh connection, the
shell and napctl itself. (It does not outlive the end of a systemd unit in whose control group napctl runs; then, as
after a kill of the guard, `napctl recover` puts the transaction back. The guard of a service is a unit of its own:
keeper_watch.py.)
"""

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from napctl.change.guard_wait import GuardWait
from napctl.change.journal import Journal
from napctl.kernel import processes
from napctl.kernel.machine_sleep import now_boot_ns
from napctl.model.backoff import Pauses
from napctl.model.change import Guard, Keeper, Transaction
from napctl.model.errors import NapctlError

__all__ = ["dismiss", "is_named", "myself", "post_guard", "watched"]


NO_DEADLINE = 0
TRIED_AGAIN = Pauses(0.2, 5.0)
PR_SET_NAME = 15
WATCHED_FD = 3
"""Where the guard keeps its hold on the process that it watches; all other descriptors it closes."""


def post_guard(seconds: float | None, directory: Path, wait_ns: int = 0) -> Guard:
    """Start a guard. After that time, or (None) when this process has ended, it restores every transaction of the
    journal there that names it and is not confirmed. `wait_ns`: as of a Guard.

    To be called before the journal is opened: its lock must not be inherited. Raises NapctlError.
    """
    deadline = NO_DEADLINE if seconds is None else now_boot_ns() + int(seconds * 1e9)
    Journal.read(directory, live=True)  # raises for one that nobody can use, while there is no guard to be sent home
    directory = directory.absolute()  # the guard leaves for /
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    # Before the fork: opened after it, it might be of nobody, or of another process with that pid.
    watched_end = os.pidfd_open(os.getpid())
    between = os.fork()
    if between == 0:
        _become_guard(write, deadline, directory, watched_end)
    os.close(watched_end)
    os.close(write)
    os.waitpid(between, 0)
    with os.fdopen(read) as told:
        pid = int(told.read() or 0)
    found = processes.process(pid) if pid else None
    if found is None:
        raise NapctlError("the guard could not be started; nothing was changed")
    return Guard(pid=pid, started_ticks=found.started_ticks, deadline_boot_ns=deadline, wait_ns=wait_ns)


@contextmanager
def watched(seconds: float | None, directory: Path, wait_ns: int = 0) -> Iterator[Guard]:
    """A guard, posted before the first change of the block, that stays for as long as the journal names it.

    So it does after an interruption that came when all was made, and if what was made could not be undone.
    """
    guard = post_guard(seconds, directory, wait_ns)
    try:
        yield guard
    finally:
        if not _needed(guard, directory):
            dismiss(guard)


def myself(entry: str = "") -> Keeper:
    """This process, as the keeper of what it changes; `entry`: as of a Keeper."""
    me = processes.process(os.getpid())
    assert me is not None
    return Keeper(pid=me.pid, started_ticks=me.started_ticks, entry=entry)


def dismiss(guard: Guard) -> None:
    """Let it go home: the transaction is confirmed, or was put back already."""
    found = processes.process(guard.pid)
    if found is not None and found.started_ticks == guard.started_ticks:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(guard.pid, signal.SIGTERM)


def is_named(guard: Guard, transaction: Transaction) -> bool:
    """Whether a transaction has it as its guard."""
    its = transaction.guard
    return its is not None and (its.pid, its.started_ticks) == (guard.pid, guard.started_ticks)


def _needed(guard: Guard, directory: Path) -> bool:
    """Whether the journal has anything that it is to put back, or cannot be asked."""
    try:
        return any(is_named(guard, each) for each in Journal.read(directory, live=True))
    except NapctlError:
        with suppress(NapctlError):
            return Journal.exists(directory)
        return True


def _become_guard(told: int, deadline: int, directory: Path, watched_end: int) -> NoReturn:
    """Fork once more, so that init is the parent, and watch. Whatever happens here never returns to the caller."""
    try:
        os.setsid()
        if pid := os.fork():
            os.write(told, str(pid).encode())
            os._exit(0)
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.dup2(watched_end, WATCHED_FD)
        os.closerange(WATCHED_FD + 1, os.sysconf("SC_OPEN_MAX"))
        # Whatever these were, the numbers that they wrote to are the journal's soon.
        sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115 - to the end of the process
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(PR_SET_NAME, b"napctl-guard", 0, 0, 0)
        if deadline == NO_DEADLINE:
            select.select([WATCHED_FD], [], [])
        _watch(deadline, directory)
    finally:
        os._exit(1)


def _watch(deadline: int, directory: Path) -> None:
    while (left_ns := deadline - now_boot_ns()) > 0:
        time.sleep(min(left_ns / 1e9, 1.0))
    me = myself()
    waiting = GuardWait()
    pause_s = 0.0
    while True:
        try:
            with Journal(directory) as journal:
                mine = [each for each in journal.live() if _is_mine(each, me)]
                waiting.restore_due(journal, mine)
        except Exception:  # the journal is in use, or the kernel refuses for now
            pause_s = TRIED_AGAIN.after(pause_s)
            time.sleep(pause_s)
            continue
        if waiting.over:
            return
        time.sleep(waiting.seconds_left)


def _is_mine(transaction: Transaction, me: Keeper) -> bool:
    """An applied plan without a keeper was confirmed."""
    named = is_named(Guard(pid=me.pid, started_ticks=me.started_ticks, deadline_boot_ns=0), transaction)
    return named and (transaction.state != "applied" or transaction.keeper is not None)
