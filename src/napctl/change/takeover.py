"""Another keeper for what is in force. The journal alone is written, no setting is touched."""

from msgspec.structs import replace

from napctl.change.guard import dismiss, is_named
from napctl.change.journal import Journal
from napctl.change.recovery import is_adoptable
from napctl.change.same_process import running
from napctl.model.change import Guard, Keeper, Transaction
from napctl.model.errors import BadInput

__all__ = ["dismiss_unneeded", "leave", "take_over"]


def take_over(journal: Journal, transaction: Transaction, guard: Guard, keeper: Keeper) -> Transaction:
    """Keep on with a transaction that another napctl has left in force, or this process before it executed another
    program; as it is recorded then. Its former guard goes home when nothing else names it.

    Raises BadInput if it is not in force as a whole any more, or another napctl keeps it.
    """
    recorded = journal.find(transaction.number)
    if recorded is None or not is_adoptable(recorded):
        raise BadInput(f"{transaction.title}: not in force any more, so nobody can take it over")
    if recorded.keeper is not None and recorded.keeper != keeper and running(recorded.keeper):
        raise BadInput(f"{recorded.title}: another napctl (pid {recorded.keeper.pid}) keeps it")
    taken = journal.update(replace(recorded, guard=guard, keeper=keeper), recorded.state)
    dismiss_unneeded(journal, recorded)
    return taken


def dismiss_unneeded(journal: Journal, transaction: Transaction) -> None:
    """The guard of a transaction that is over, or has another one, goes home if nothing else names it."""
    guard = transaction.guard
    if guard is not None and guard.pid and not any(is_named(guard, each) for each in journal.live()):
        dismiss(guard)


def leave(journal: Journal, transaction: Transaction) -> None:
    """Let it stay in force without a keeper, until somebody undoes it or takes it over."""
    recorded = journal.find(transaction.number)
    if recorded is not None and recorded.state == transaction.state:
        journal.update(replace(recorded, guard=None, keeper=None), recorded.state)
