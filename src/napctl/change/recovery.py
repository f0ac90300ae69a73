"""What has no owner any more is put back: interrupted operations, ended servers, changes that nobody confirmed."""

import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from napctl.change.after_reset import set_again_after
from napctl.change.guard_lock import is_on_watch
from napctl.change.journal import Journal, state_directory
from napctl.change.same_process import HasProcess, running
from napctl.change.transaction import objects, restore
from napctl.kernel import running_kernel
from napctl.model.change import Keeper, PollerChange, Restored, SteeringChange, Transaction, devices_of
from napctl.model.errors import BadInput, NapctlError, RolledBack

__all__ = [
    "alive",
    "is_adoptable",
    "on_trial",
    "orphaned",
    "recover",
    "refuse_unsettled",
    "restored_each",
]


GRACE_NS = 2 * 10**9
"""A guard that has not restored its transaction that long after its time does not work."""


def recover(journal: Journal) -> Iterator[tuple[Transaction, list[Restored]]]:
    """Restore all that has no owner, the newest first. Harmless to repeat. Raises what restored_each() raises."""
    return restored_each(journal, [each for each in journal.live() if orphaned(each, journal.directory)])


def restored_each(
    journal: Journal, transactions: Iterable[Transaction]
) -> Iterator[tuple[Transaction, list[Restored]]]:
    """Restore these, which are given oldest first, the newest first.

    One that cannot be restored stands in the way of those only upon which it was made: what restore() raised comes in
    the end, a full disk's RolledBack only if there was nothing worse.
    """
    errors: list[NapctlError] = []
    stuck: set[tuple[int, int]] = set()
    for each in reversed(list(transactions)):
        if stuck & objects(each):
            continue
        try:
            with set_again_after(journal, each.changes):
                rows = restore(journal, journal.find(each.number) or each)  # one before may have set it again
        except RolledBack as error:  # it is put back, which a full disk cannot be told
            errors.append(error)
        except NapctlError as error:
            errors.insert(0, error)
            stuck |= objects(each)
        else:
            yield each, rows
    if errors:
        raise errors[0]


def orphaned(transaction: Transaction, directory: Path | None = None) -> bool:
    """Whether nobody will come back to it. The journal (of that directory) is locked, so nobody is at work on it now; a
    trial waits for its next turn, and what may be adopted for whoever adopts it."""
    if transaction.boot_id != running_kernel.boot_id():
        return True
    match transaction.state:
        case "attached":
            return not alive(transaction) or not _kept(transaction, directory)
        case "applied":
            return not _kept(transaction, directory)
        case "unconfirmed":
            return not guarded(transaction, directory)
        case "changing" | "restoring":
            followed = transaction.state == "changing" and _is_followed(transaction)
            return not (followed or on_trial(transaction))
    return False


def _kept(transaction: Transaction, directory: Path | None) -> bool:
    """Whether its keeper runs, if it has one; or a guard waits for another one."""
    keeper, guard = transaction.keeper, transaction.guard
    if keeper is None or running(keeper):
        return True
    return guard is not None and guard.wait_ns > 0 and guarded(transaction, directory)


def is_adoptable(transaction: Transaction) -> bool:
    """Whether it is in force as a whole, so that another keeper may take it over as it is."""
    if transaction.boot_id != running_kernel.boot_id():
        return False
    return transaction.state == "applied" or (transaction.state == "attached" and alive(transaction))


def _is_followed(transaction: Transaction) -> bool:
    """Whether a running napctl follows what it changes: one that was kept from recording a step, as by a full disk,
    does that at its next check."""
    kept = transaction.keeper is not None and running(transaction.keeper)
    return kept and (transaction.kind in ("apply", "protect") or alive(transaction))


def on_trial(transaction: Transaction) -> bool:
    """Whether a running `napctl verify` makes it and undoes it by turns."""
    return transaction.kind == "verify" and transaction.keeper is not None and running(transaction.keeper)


def alive(attachment: Transaction) -> bool:
    """Whether the process attached to, or another one that it changes, still runs."""
    return attachment.boot_id == running_kernel.boot_id() and any(map(running, _named_in(attachment)))


def _named_in(attachment: Transaction) -> Iterator[HasProcess]:
    """Its processes, one of which mostly runs: the first ones first."""
    yield attachment
    yield from attachment.also
    for each in attachment.changes:
        if isinstance(each, PollerChange):
            yield from each.holders
        elif isinstance(each, SteeringChange):
            yield each


def guarded(transaction: Transaction, directory: Path | None = None) -> bool:
    """Whether a guard will restore it when its time has come."""
    guard = transaction.guard
    if guard is None:
        return False
    deadline = guard.deadline_boot_ns
    if deadline and time.clock_gettime_ns(time.CLOCK_BOOTTIME) > deadline + GRACE_NS:
        return False
    return running(guard) if guard.pid else is_on_watch(directory or state_directory())


def refuse_unsettled(journal: Journal, devices: Collection[str] | None = None, *, keeper: Keeper | None = None) -> None:
    """Raises BadInput if a plan on one of these devices (None: on any) waits for a confirmation, or another napctl than
    this keeper tries one of their settings.

    A guard leaves alone what somebody has set upon its plan, and what is only tried is nobody's former value.
    """
    for each in journal.live():
        if devices is not None and not set(devices) & set(devices_of(each.changes)):
            continue
        if each.state == "unconfirmed":
            raise BadInput(
                f"{each.title} waits for a confirmation; `napctl confirm {each.number}` or "
                f"`napctl rollback {each.number}` first"
            )
        if on_trial(each) and each.keeper is not None and each.keeper != keeper:
            raise BadInput(f"{each.title} is on trial by `napctl verify` (pid {each.keeper.pid}); wait for its end")
