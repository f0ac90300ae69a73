"""A transaction: recorded, made, read back; and undone as a whole if any part of it is refused."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec.structs import replace

from napctl.change.holders import refuse_second_holder
from napctl.change.journal import Journal
from napctl.change.objects import Places, recognisable
from napctl.change.one_change import all_gone, make, refuse_changed, settled, undo
from napctl.change.renewal import joined, object_of
from napctl.change.successors import inherited
from napctl.change.undoing_order import paused_meanwhile, resumed_seconds, suspension_first, undoing_order
from napctl.kernel import running_kernel
from napctl.model.change import (
    Change,
    ChannelsChange,
    CoalescingChange,
    DeviceChange,
    EpollChange,
    Guard,
    InstanceChange,
    IoUringChange,
    Keeper,
    Kind,
    Restored,
    RingsChange,
    SocketChange,
    State,
    SteeringChange,
    ThreadChange,
    Transaction,
)
from napctl.model.errors import ChangedMeanwhile, NapctlError, RolledBack

__all__ = [
    "LeaveOut",
    "amend",
    "apply",
    "begun",
    "never",
    "objects",
    "restore",
    "undisturbed",
    "undo_all",
]


def begun(
    kind: Kind, name: str, changes: tuple[Change, ...], *, pid: int = 0, started_ticks: int = 0,
    forced: tuple[str, ...] = (), guard: Guard | None = None, keeper: Keeper | None = None,
) -> Transaction:  # fmt: skip
    """A transaction of now, not yet recorded."""
    return Transaction(
        kind=kind,
        boot_id=running_kernel.boot_id(),
        made_unix_ns=time.time_ns(),
        name=name,
        pid=pid,
        started_ticks=started_ticks,
        forced=forced,
        guard=guard,
        keeper=keeper,
        changes=changes,
    )


LeaveOut = Callable[[Change, NapctlError], bool]
"""Told of a change that is refused, and why: whether the others are to be made all the same."""


def never(_change: Change, _error: NapctlError) -> bool:
    """All or nothing."""
    return False


def apply(journal: Journal, transaction: Transaction, *, then: State, leave_out: LeaveOut = never) -> Transaction:
    """Make all changes of a transaction, each recorded on disk before; returns it as it is recorded in the end.

    `then` is the state that it comes into. If a change is refused that is not to be left out, or napctl is interrupted,
    what was made is undone and the error raised: ChangedMeanwhile; NotPermitted, Unsupported or BadInput if nothing had
    been changed by then, else RolledBack. Raises BadInput if somebody else holds one of its NAPI instances.
    """
    refuse_second_holder(transaction.changes, journal.live(), kind=transaction.kind)
    with undisturbed() as interrupted, Places() as places:
        transaction = recognisable(transaction, places)
        made = replace(transaction, number=journal.begin(transaction))
        done: list[Change] = []
        trying: tuple[Change, ...] = ()
        try:
            moved = set(_moved(transaction.changes))
            for number in moved:
                refuse_changed(transaction.changes[number], places)
            for number, change in enumerate(transaction.changes):
                _stop_if(interrupted())
                trying = (change,)
                try:
                    done.append(make(change, places, "anything" if number in moved else "former"))
                except NapctlError as error:
                    if not _left_out(change, error, places, leave_out):
                        raise
                trying = ()
                if isinstance(change, DeviceChange):
                    # What the driver made of it, for who undoes it after a kill.
                    rest = transaction.changes[number + 1 :]
                    made = journal.update(replace(made, changes=(*done, *rest)), "changing")
            made = journal.update(replace(made, changes=tuple(done)), then)
            _stop_if(interrupted())
        except BaseException as error:
            if isinstance(error, ChangedMeanwhile):  # which make() found before it wrote anything
                trying = ()
            _take_back(journal, replace(made, changes=(*done, *trying)), places, error)
            raise
    return made


def amend(
    journal: Journal,
    transaction: Transaction,
    *,
    more: Sequence[Change] = (),
    without: Sequence[Change] = (),
    forget: Sequence[Change] = (),
    leave_out: LeaveOut = never,
    join: bool = False,
) -> Transaction:
    """Go on with a transaction that is in force: make further changes part of it, undo those `without` which it is to
    be, and forget those whose objects are gone.

    Returns it as it is recorded then. If one of `more` is refused that is not to be left out, or what came of them
    cannot be recorded, those made of them are undone, and the error raised: the rest stays in force. One that has
    napctl's own value already is made all the same: a driver that keeps its structures over a reset leaves it in an
    instance that it makes anew. `join`: those of a device that are of one object become one, and what was there before
    the first is put back in the end. A kill amid it leaves the transaction as one to be restored as a whole.
    """
    refuse_second_holder(more, journal.live(), transaction.number, kind=transaction.kind)
    with undisturbed(), Places() as places:
        _undo_parts(journal, transaction, without, places)
        dropped = (*without, *forget)
        kept = replace(transaction, changes=tuple(each for each in transaction.changes if each not in dropped))
        further = recognisable(replace(kept, changes=tuple(more)), places).changes
        if not further:
            return journal.update(kept, transaction.state)
        with_all = joined if join else _appended
        amid = [_amid(each, kept.changes) for each in further]
        journal.update(replace(kept, changes=with_all(kept.changes, amid)), "changing")
        moved = set(_moved(further))
        tried: list[Change] = []
        try:
            for number, change in enumerate(further):
                tried.append(change)
                try:
                    tried[-1] = settled(make(change, places, "anything" if number in moved else "former or own"))
                except NapctlError as error:
                    if not _left_out(change, error, places, leave_out):
                        raise
                    tried.pop()
            return journal.update(replace(kept, changes=with_all(kept.changes, tried)), transaction.state)
        except BaseException as error:
            if isinstance(error, ChangedMeanwhile):  # which make() found before it wrote anything
                tried.pop()
            with suppress(NapctlError):  # what is not undone, or cannot be told, stays listed
                _undo_parts(journal, replace(kept, changes=(*kept.changes, *tried)), tried, places)
                journal.update(kept, transaction.state)
            raise


def _amid(change: Change, changes: Sequence[Change]) -> Change:
    """As it may be found if napctl is killed before it is made: still with what napctl has set there before."""
    if not isinstance(change, InstanceChange):
        return change
    own = (each.after for each in changes if isinstance(each, type(change)) and object_of(each) == object_of(change))
    return replace(change, leaving=next(own, None))


def _appended(changes: Sequence[Change], more: Sequence[Change]) -> tuple[Change, ...]:
    return (*changes, *more)


def _undo_parts(journal: Journal, transaction: Transaction, without: Sequence[Change], places: Places) -> None:
    """Undo these of the changes of a transaction in force, in the order of undo_all().

    While suspension is paused of what stays, a kill leaves the transaction as one to be restored as a whole.
    """
    pauses = paused_meanwhile(without, transaction.changes)
    if pauses:
        with suppress(RolledBack):  # a full disk does not stand in the way of undoing
            journal.update(transaction, "changing")
    paused = [each for each in pauses if _is_put_back(each, places)]
    try:
        _, errors = _undone(*suspension_first(undoing_order(without)), places, paused=paused)
    finally:
        for each in paused:
            with suppress(NapctlError):  # it went meanwhile, or somebody else has set it by now
                make(each, places)
        if pauses:
            with suppress(RolledBack):
                journal.update(transaction, transaction.state)
    if errors:
        raise errors[0]


def _is_put_back(change: Change, places: Places) -> bool:
    """Whether undoing it has changed anything; what is away or gone is left."""
    try:
        return any(row.outcome == "restored" for row in undo(change, places))
    except NapctlError:
        return False


def _left_out(change: Change, error: NapctlError, places: Places, leave_out: LeaveOut) -> bool:
    """Whether a change that is refused is left out: then nothing of it is left."""
    if not leave_out(change, error):
        return False
    if not isinstance(error, ChangedMeanwhile):
        with suppress(NapctlError):  # what cannot be read was not written
            undo(change, places)
    return True


def restore(journal: Journal, transaction: Transaction, *, force: bool = False) -> list[Restored]:
    """Undo a transaction, the last change first. Raises NapctlError if the kernel refuses; it can then be repeated.

    A trial of napctl's that stands upon it, and only waits for its next turn, is undone first: so it is over. A journal
    that cannot be written (a full disk) does not stand in the way of undoing, which needs no record: then RolledBack is
    raised afterwards, as the journal still lists what is undone by then.
    """
    live = journal.live()
    for each in reversed(live):
        if each.kind == "verify" and each.number > transaction.number and objects(each) & objects(transaction):
            with suppress(RolledBack):  # it is undone, which a full disk cannot be told
                restore(journal, each)
    if transaction.boot_id != running_kernel.boot_id():
        journal.set_state(transaction.number, "restored")
        return [row for change in transaction.changes for row in all_gone(change)]
    with undisturbed(), Places() as places:
        if transaction.state != "changing":  # that it was interrupted there must not be forgotten
            with suppress(RolledBack):
                journal.set_state(transaction.number, "restoring")
        rows = undo_all(transaction, places, force=force)
        for change in inherited(transaction.changes, live, places):
            rows += undo(change, places)
        try:
            journal.set_state(transaction.number, "restored")
        except RolledBack as error:
            words = str(error).removesuffix("; nothing was changed")
            raise RolledBack(f"{words}; the settings were put back, `napctl recover` will find nothing to do") from None
    return rows


def objects(transaction: Transaction) -> set[tuple[int, int]]:
    """Devices, epoll instances, rings and sockets that it changes."""
    return {_object(change) for change in transaction.changes}


def _object(change: Change) -> tuple[int, int]:
    match change:
        case EpollChange():
            return change.pid, change.epoll_fd
        case SocketChange() | IoUringChange() | SteeringChange():
            return change.pid, change.fd
    return change.netns, change.ifindex


def _moved(changes: Sequence[Change]) -> Iterator[int]:
    """Places of the changes whose setting an earlier one may move, as the driver is given its device as a whole."""
    for place, change in enumerate(changes):
        for other in changes[:place]:
            rings = isinstance(other, RingsChange | ChannelsChange)
            wide = isinstance(other, CoalescingChange) and other.queue is None and isinstance(change, CoalescingChange)
            threads = isinstance(other, ThreadChange) and isinstance(change, ThreadChange) and other.whole_device
            if (rings or wide or threads) and _device(other) == _device(change):
                yield place


def _device(change: Change) -> tuple[int | None, int | None]:
    return getattr(change, "netns", None), getattr(change, "ifindex", None)


def _take_back(journal: Journal, made: Transaction, places: Places, error: BaseException) -> None:
    """Undo what was made so far. Raises RolledBack (or ChangedMeanwhile, as `error` is) if there was anything; the
    caller raises `error` if not."""
    rows = undo_all(made, places)
    journal.set_state(made.number, "restored")
    kind = ChangedMeanwhile if isinstance(error, ChangedMeanwhile) else RolledBack
    left = [f"{row.where}: {row.setting} is {row.found}" for row in rows if row.outcome == "left"]
    if left and isinstance(error, NapctlError):
        raise kind(f"{error}; not put back, as somebody else set it: {', '.join(left)}") from None
    if isinstance(error, NapctlError) and any(row.outcome == "restored" for row in rows):
        rolled_back = kind(f"{error}; what had been changed was put back")
        if isinstance(rolled_back, RolledBack):
            rolled_back.because = error
        raise rolled_back from None


def undo_all(transaction: Transaction, places: Places, *, force: bool = False) -> list[Restored]:
    """In the order of undoing_order(), after suspension_first().

    One that is refused does not keep the others from being undone; its error is raised in the end.
    """
    changes = undoing_order(transaction.changes)
    first, rest = suspension_first(changes)
    rows, errors = _undone(first, rest, places, force=force, interrupted=_interrupted(transaction))
    if errors:
        error = type(errors[0])(f"{errors[0]}; still to be restored: `napctl recover`")
        error.leaves_changed = True
        raise error
    places_of = {change.where: number for number, change in enumerate(changes)}
    return sorted(rows, key=lambda row: places_of[row.where])


def _undone(
    first: Sequence[Change], rest: Sequence[Change], places: Places, *, force: bool = False,
    interrupted: Change | None = None, paused: Sequence[Change] = (),
) -> tuple[list[Restored], list[NapctlError]]:  # fmt: skip
    """What became of each setting, and what was refused. Between `first` and `rest` the suspension ends of these, and
    of what was `paused`."""
    rows: list[Restored] = []
    errors: list[NapctlError] = []
    for number, change in enumerate((*first, *rest)):
        if number == len(first) and (paused or any(row.outcome == "restored" for row in rows)):
            time.sleep(resumed_seconds((*first, *paused)))
        try:
            rows += undo(change, places, force=force, interrupted=change is interrupted)
        except NapctlError as error:
            errors.append(error)
    return rows, errors


def _interrupted(transaction: Transaction) -> Change | None:
    """The one change that may have been made without a record of what came of it: the first that has none.

    Those after it were not begun, as _make_one() records one before the next.
    """
    devices = (each for each in transaction.changes if isinstance(each, DeviceChange))
    return next((each for each in devices if each.found is None), None) if transaction.state == "changing" else None


def _stop_if(interrupted: bool) -> None:
    if interrupted:
        raise NapctlError("interrupted")


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
        for each in dict.fromkeys(received):
            signal.raise_signal(each)
