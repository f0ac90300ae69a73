"""A transaction: recorded, made, read back; and undone as a whole if any part of it is refused."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from napctl.change.journal import Journal
from napctl.change.undo import undo
from napctl.kernel import epoll, processes, system
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.netlink import Refused
from napctl.model.change import Change, EpollChange, NapiChange, Restored, Transaction
from napctl.model.errors import BadInput, NapctlError, NotPermitted, RolledBack, Unsupported
from napctl.model.settings import NapiSettings


def apply(journal: Journal, transaction: Transaction) -> int:
    """Make all changes of a transaction, each recorded on disk before. Returns its number in the journal.

    If a change is refused, or napctl is interrupted, what was made is undone and the error raised: NotPermitted,
    Unsupported or BadInput if nothing had been changed by then, else RolledBack.
    """
    number = journal.begin(transaction)
    made = 0
    try:
        for change in transaction.changes:
            _make(change)
            made += 1
        journal.set_state(number, "attached")
    except BaseException as error:
        with undisturbed():
            _undo_all(transaction, force=False)
            journal.set_state(number, "restored")
        if made and isinstance(error, NapctlError):
            raise RolledBack(f"{error}; what had been changed was put back") from None
        raise
    return number


def restore(journal: Journal, transaction: Transaction, *, force: bool = False) -> list[Restored]:
    """Undo a transaction, the last change first. Raises NapctlError if the kernel refuses; it can then be repeated."""
    if transaction.boot_id != system.boot_id():
        journal.set_state(transaction.number, "restored")  # the reboot has undone everything
        return []
    journal.set_state(transaction.number, "restoring")
    with undisturbed():
        rows = _undo_all(transaction, force=force)
        journal.set_state(transaction.number, "restored")
    return rows


def _undo_all(transaction: Transaction, *, force: bool) -> list[Restored]:
    """The last change first: the application must stop polling before its NAPI instance loses the deferral."""
    rows: list[Restored] = []
    for change in reversed(transaction.changes):
        try:
            rows += undo(change, force=force)
        except (OSError, Refused) as error:
            explained = _explain(change, error)
            raise type(explained)(f"{explained}; still to be restored: `napctl recover`") from None
    return rows


def _make(change: Change) -> None:
    try:
        if isinstance(change, NapiChange):
            _make_napi(change)
        else:
            _make_epoll(change)
    except (OSError, Refused) as error:
        raise _explain(change, error) from None


def _make_napi(change: NapiChange) -> None:
    namespace = NetworkNamespace.find(change.netns)
    if namespace is None:
        raise BadInput(f"{change.where}: its network namespace is gone")
    with namespace, Netdev(namespace) as netdev:
        netdev.set_napi(change.napi_id, change.after)
        napi = netdev.napi(change.napi_id)
    for name in NapiSettings.__struct_fields__:
        wanted = getattr(change.after, name)
        found = getattr(napi.settings, name) if napi else None
        if wanted is not None and found != wanted:
            raise Unsupported(f"{change.where}: {name} was set to {wanted} and reads back as {found}")


def _make_epoll(change: EpollChange) -> None:
    found = processes.process(change.pid)
    if found is None or found.started_ticks != change.started_ticks:
        raise BadInput(f"{change.name} ({change.pid}) is gone")
    with processes.Handle(change.pid) as handle, handle.copy_of(change.epoll_fd) as copy:
        epoll.set_params(copy, change.after)
        if epoll.params(copy) != change.after:
            raise Unsupported(f"{change.where}: the kernel did not keep {change.after}")
    if processes.process(change.pid) != found:  # our copy keeps the instance of a process that has ended
        raise BadInput(f"{change.name} ({change.pid}) ended meanwhile")


def _explain(change: Change, error: OSError | Refused) -> NapctlError:
    if isinstance(error, Refused) and error.exit_status != NotPermitted.exit_status:
        return Unsupported(f"{change.where}: {error}")
    if isinstance(error, PermissionError | Refused):
        needs = "CAP_SYS_PTRACE" if isinstance(change, EpollChange) else "CAP_NET_ADMIN in the initial user namespace"
        return NotPermitted(f"{change.where}: not permitted; changing it needs {needs}")
    if isinstance(error, ProcessLookupError | FileNotFoundError):
        return BadInput(f"{change.where}: gone meanwhile")
    return Unsupported(f"{change.where}: {error.strerror or os.strerror(error.errno or 0)}")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold back the signals that end napctl until settings are back in order (kill -9 is what the journal is for)."""
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
