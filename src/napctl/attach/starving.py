"""Taking back what starves: the instances whose packets a window has shown to wait for the suspend timer."""

from collections.abc import Collection, Iterator, Sequence

from napctl.attach.attachment import detach
from napctl.attach.inspect_target import Examination
from napctl.change.journal import Journal
from napctl.change.transaction import amend, undisturbed
from napctl.model.activity import Now
from napctl.model.change import (
    Change,
    EpollChange,
    IoUringChange,
    NapiChange,
    PollerChange,
    Restored,
    SocketChange,
    Transaction,
)

__all__ = ["starved_changes", "take_back"]


def take_back(
    journal: Journal, transaction: Transaction, found: Examination, now: Now
) -> tuple[Sequence[Change], Sequence[Restored]]:
    """Undo what `now`, a window after attaching, has shown to starve; the rest stays attached. Returns what was undone,
    and, where nothing is left, what became of each setting.

    `found`: an examination of after the window, which tells whom these NAPI instances feed by then; a glance will do.
    Raises what amend() and restore() raise.
    """
    starved = tuple(starved_changes(transaction, found, now.starving))
    if not starved:
        return (), ()
    kept = [change for change in transaction.changes if change not in starved]
    with undisturbed():
        live = [each for each in journal.live() if each.number == transaction.number]
        if live and any(isinstance(change, NapiChange | PollerChange) for change in kept):
            amend(journal, transaction, without=starved)
            return starved, ()
        return transaction.changes, detach(journal, live)


def starved_changes(transaction: Transaction, found: Examination, starving: Collection[int]) -> Iterator[Change]:
    """These NAPI instances, all that they feed, and NAPI instances that feed nothing else that is attached. Pure."""
    napis = {place: set(each.sockets_by_napi) for each in found.instances for place in each.places}
    by_socket = {each.inode: {each.napi_id} - {None} for each in found.plain_sockets}
    by_ring = {each.inode: each.napis for each in found.rings}
    fed: dict[Change, set[int | None]] = {}
    for change in transaction.changes:
        if isinstance(change, EpollChange):
            fed[change] = {napi for each in change.holders for napi in napis.get((each.pid, each.fd), ())}
        elif isinstance(change, SocketChange):
            fed[change] = set(by_socket.get(change.inode, ()))
        elif isinstance(change, IoUringChange):
            fed[change] = set(by_ring.get(change.inode, ()))
    unfit = [change for change, ids in fed.items() if ids & set(starving)]
    theirs = set[int | None]().union(*(fed[change] for change in unfit))
    others = set[int | None]().union(*(ids for change, ids in fed.items() if change not in unfit))
    for change in transaction.changes:
        if change in unfit or (
            isinstance(change, NapiChange) and (change.napi_id in starving or change.napi_id in theirs - others)
        ):
            yield change
