"""What has no owner any more is put back: interrupted operations, ended servers, changes that nobody confirmed."""

import time
from collections.abc import Collection, Iterator
from typing import Protocol

from napctl.change.journal import Journal
from napctl.change.planned import devices_of
from napctl.change.transaction import restore
from napctl.kernel import processes, system
from napctl.model.change import Change, EpollChange, Restored, SocketChange, SteeringChange, Transaction
from napctl.model.errors import BadInput, NapctlError


class HasProcess(Protocol):
    """What names a process so that it is known again."""

    @property
    def pid(self) -> int: ...  # noqa: D102

    @property
    def started_ticks(self) -> int: ...  # noqa: D102


GRACE_NS = 2 * 10**9
"""A guard that has not restored its transaction that long after its time does not work."""


def recover(journal: Journal) -> Iterator[tuple[Transaction, list[Restored]]]:
    """Restore all that has no owner, the newest first. Harmless to repeat.

    One that cannot be restored stands in the way of those only upon which it was made: what restore() raised comes in
    the end.
    """
    orphans = [each for each in journal.live() if orphaned(each)]
    errors: list[NapctlError] = []
    stuck: set[tuple[int, int]] = set()
    for each in reversed(orphans):
        if stuck & _objects(each):
            continue
        try:
            rows = restore(journal, each)
        except NapctlError as error:
            errors.append(error)
            stuck |= _objects(each)
        else:
            yield each, rows
    if errors:
        raise errors[0]


def _objects(transaction: Transaction) -> set[tuple[int, int]]:
    """Devices and epoll instances that it changes."""
    return {_object(change) for change in transaction.changes}


def _object(change: Change) -> tuple[int, int]:
    match change:
        case EpollChange():
            return change.pid, change.epoll_fd
        case SocketChange() | SteeringChange():
            return change.pid, change.fd
    return change.netns, change.ifindex


def orphaned(transaction: Transaction) -> bool:
    """Whether nobody will come back to it. The journal is locked, so nobody is at work on it now."""
    if transaction.boot_id != system.boot_id():
        return True
    match transaction.state:
        case "attached":
            return not alive(transaction) or (transaction.keeper is not None and not running(transaction.keeper))
        case "unconfirmed":
            return not guarded(transaction)
        case "changing" | "restoring":
            return True
    return False


def alive(attachment: Transaction) -> bool:
    """Whether the process attached to, or another one that it changes, still runs."""
    held: list[HasProcess] = [attachment]
    for each in attachment.changes:
        held += each.holders if isinstance(each, EpollChange | SocketChange) else ()
        held += [each] if isinstance(each, SteeringChange) else ()
    return attachment.boot_id == system.boot_id() and any(running(each) for each in held)


def running(one: HasProcess) -> bool:
    """Whether the very process runs that a record names, and not another one with its pid."""
    found = processes.process(one.pid)
    return found is not None and found.started_ticks == one.started_ticks


def guarded(transaction: Transaction) -> bool:
    """Whether a guard will restore it when its time has come."""
    guard = transaction.guard
    if guard is None:
        return False
    deadline = guard.deadline_boot_ns
    if deadline and time.clock_gettime_ns(time.CLOCK_BOOTTIME) > deadline + GRACE_NS:
        return False
    return running(guard)


def refuse_unconfirmed(journal: Journal, devices: Collection[str] | None = None) -> None:
    """Raises BadInput if a plan on one of these devices (None: on any) waits for a confirmation.

    Its guard needs the journal in time, and leaves alone what somebody has set upon it.
    """
    for each in journal.live():
        if each.state == "unconfirmed" and (devices is None or set(devices) & set(devices_of(each.changes))):
            raise BadInput(
                f"{each.title} waits for a confirmation; `napctl confirm {each.number}` or "
                f"`napctl rollback {each.number}` first"
            )
