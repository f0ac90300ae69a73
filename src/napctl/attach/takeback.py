"""Taking back what starves: the instances whose packets a window has shown to wait for the suspend timer."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from napctl.attach.attach import detach
from napctl.attach.examine import Examination
from napctl.attach.report import Now
from napctl.change.journal import Journal
from napctl.change.transaction import amend, undisturbed
from napctl.model.change import Change, EpollChange, NapiChange, Restored, SocketChange, Transaction


@dataclass(frozen=True)
class TakenBack:
    """What became of an attachment of which something starved."""

    changes: tuple[Change, ...] = ()
    """Those that are undone; none: nothing starved that is attached."""
    rest: Transaction | None = None
    """What is still attached."""
    restored: tuple[Restored, ...] = ()
    """What became of each setting, where nothing is left."""

    @property
    def where(self) -> tuple[str, ...]:
        """For messages."""
        return tuple(change.where for change in self.changes)


def take_back(journal: Journal, transaction: Transaction, found: Examination, now: Now) -> TakenBack:
    """Undo what `now`, a window after attaching, has shown to starve; the rest stays attached.

    `found`: an examination of after the window, which tells whom these NAPI instances feed by then; a glance will do.
    Raises what amend() and restore() raise.
    """
    starved = tuple(starved_changes(transaction, found, now.starving))
    if not starved:
        return TakenBack(rest=transaction)
    kept = [change for change in transaction.changes if change not in starved]
    with undisturbed():
        live = [each for each in journal.live() if each.number == transaction.number]
        if live and any(isinstance(change, NapiChange | EpollChange | SocketChange) for change in kept):
            return TakenBack(starved, amend(journal, transaction, without=starved))
        return TakenBack(transaction.changes, None, tuple(detach(journal, live)))


def starved_changes(transaction: Transaction, found: Examination, starving: Collection[int]) -> Iterator[Change]:
    """These NAPI instances, all that they feed, and NAPI instances that feed nothing else that is attached. Pure."""
    napis = {place: set(each.sockets_by_napi) for each in found.instances for place in each.places}
    by_socket = {each.inode: {each.napi_id} - {None} for each in found.loose}
    fed: dict[Change, set[int | None]] = {}
    for change in transaction.changes:
        if isinstance(change, EpollChange):
            fed[change] = {napi for each in change.holders for napi in napis.get((each.pid, each.fd), ())}
        elif isinstance(change, SocketChange):
            fed[change] = set(by_socket.get(change.inode, ()))
    unfit = [change for change, ids in fed.items() if ids & set(starving)]
    theirs = set[int | None]().union(*(fed[change] for change in unfit))
    others = set[int | None]().union(*(ids for change, ids in fed.items() if change not in unfit))
    for change in transaction.changes:
        if change in unfit or (
            isinstance(change, NapiChange) and (change.napi_id in starving or change.napi_id in theirs - others)
        ):
            yield change
