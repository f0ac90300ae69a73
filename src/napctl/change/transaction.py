"""A transaction: recorded, made, read back; and undone as a whole if any part of it is refused."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from napctl.change.journal import Journal
from napctl.change.undo import all_gone, undo
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
    with undisturbed() as interrupted:
        number = journal.begin(transaction)
        try:
            for change in transaction.changes:
                if interrupted():
                    raise NapctlError("interrupted")
                _make(change)
            journal.set_state(number, "attached")
            if interrupted():
                raise NapctlError("interrupted")
        except BaseException as error:
            rows = _undo_all(transaction, force=False)
            journal.set_state(number, "restored")
            left = [f"{row.where}: {row.setting} is {row.found}" for row in rows if row.outcome == "left"]
            if left and isinstance(error, NapctlError):
                raise RolledBack(f"{error}; not put back, as somebody else set it: {', '.join(left)}") from None
            if isinstance(error, NapctlError) and any(row.outcome == "restored" for row in rows):
                raise RolledBack(f"{error}; what had been changed was put back") from None
            raise
    return number


def restore(journal: Journal, transaction: Transaction, *, force: bool = False) -> list[Restored]:
    """Undo a transaction, the last change first. Raises NapctlError if the kernel refuses; it can then be repeated.

    A journal that cannot be written (a full disk) does not stand in the way of undoing, which needs no record: then
    RolledBack is raised afterwards, as the journal still lists what is undone by then.
    """
    if transaction.boot_id != system.boot_id():
        journal.set_state(transaction.number, "restored")
        return [row for change in transaction.changes for row in all_gone(change)]
    with undisturbed():
        with suppress(RolledBack):
            journal.set_state(transaction.number, "restoring")
        rows = _undo_all(transaction, force=force)
        try:
            journal.set_state(transaction.number, "restored")
        except RolledBack as error:
            words = str(error).removesuffix("; nothing was changed")
            raise RolledBack(f"{words}; the settings were put back, `napctl recover` will find nothing to do") from None
    return rows


def _undo_all(transaction: Transaction, *, force: bool) -> list[Restored]:
    """The last change first: the application must stop polling before its NAPI instance loses the deferral.

    One that is refused does not keep the others from being undone; its error is raised in the end.
    """
    rows: list[Restored] = []
    errors: list[NapctlError] = []
    for change in reversed(transaction.changes):
        try:
            rows += undo(change, force=force)
        except (OSError, Refused) as error:
            errors.append(_explain(change, error))
        except NapctlError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])(f"{errors[0]}; still to be restored: `napctl recover`")
    return rows


def _make(change: Change) -> None:
    try:
        if isinstance(change, NapiChange):
            _make_napi(change)
        elif isinstance(change, EpollChange):
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
    with processes.Handle(change.pid) as handle, handle.copy_of(change.epoll_fd) as copy:
        found = processes.process(change.pid)
        if found is None or found.started_ticks != change.started_ticks:
            raise BadInput(f"{change.name} ({change.pid}) is gone")
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
def undisturbed() -> Iterator[Callable[[], bool]]:
    """Hold back the signals that end napctl until settings are in order; yields a function that tells whether one came.

    Handlers and not a signal mask: a mask holds for one thread only, and a signal may slip in while it is set. (Kill -9
    is what the journal is for.)
    """
    received: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, lambda number, _frame: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])
