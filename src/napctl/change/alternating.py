"""A trial: all changes of a transaction made and undone by turns, with the journal free for others in between."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from napctl.change.holders import refuse_second_holder
from napctl.change.journal import Journal
from napctl.change.objects import Places, recognisable
from napctl.change.one_change import make, value_words
from napctl.change.recovery import refuse_unsettled
from napctl.change.transaction import restore, undisturbed, undo_all
from napctl.model.change import Restored, Transaction, devices_of
from napctl.model.errors import ChangedMeanwhile
from napctl.model.settings import kernel_name

__all__ = ["PATIENCE_SECONDS", "alternating", "refuse_left"]


PATIENCE_SECONDS = 60
"""For the journal, before something is left on that only this process knows of; a guard has more."""


@contextmanager
def alternating(directory: Path, transaction: Transaction) -> Iterator[Callable[[bool], Transaction]]:
    """Switch all changes of a transaction on and off, as often as wanted; leaving puts everything back.

    Yields `switch(on)`, which returns the transaction with what the driver made of it, and raises what make() and
    undo() raise. The journal is locked for each switch only, and holds the transaction as `changing` all the while: its
    keeper keeps it from being recovered, its guard recovers from a kill. Who restores what lies below puts it back
    first: then, and when somebody else has changed a setting, ChangedMeanwhile is raised. Raises BadInput if there is a
    trial of its devices already, a plan that waits for its confirmation, or another holder of one of its NAPI
    instances.
    """
    with Places() as places:
        with undisturbed(), Journal(directory) as journal:
            refuse_unsettled(journal, devices_of(transaction.changes), keeper=transaction.keeper)
            refuse_second_holder(transaction.changes, journal.live())
            transaction = recognisable(transaction, places)
            made = replace(transaction, number=journal.begin(transaction))

        def switch(on: bool) -> Transaction:
            nonlocal made
            with undisturbed(), Journal(directory) as journal:
                if _put_back_meanwhile(journal, made):
                    raise ChangedMeanwhile(f"{made.title}: somebody else has put it back, so the trial is over")
                if on:
                    for number in range(len(made.changes)):
                        made = _make_one(journal, made, number, places)
                else:
                    refuse_left(undo_all(made, places))
            return made

        def put_back() -> list[Restored]:
            with undisturbed(), Journal(directory, patience_seconds=PATIENCE_SECONDS) as journal:
                if _put_back_meanwhile(journal, made):
                    return []
                return restore(journal, made)

        try:
            yield switch
        except BaseException:
            put_back()
            raise
        refuse_left(put_back())


def _put_back_meanwhile(journal: Journal, transaction: Transaction) -> bool:
    return all(each.number != transaction.number for each in journal.live())


def _make_one(journal: Journal, transaction: Transaction, number: int, places: Places) -> Transaction:
    """Make one change, and record what the driver made of it before the next: undoing needs it, also after a kill."""
    before = transaction.changes[number]
    made = make(before, places, "former or own")
    transaction = replace(
        transaction, changes=(*transaction.changes[:number], made, *transaction.changes[number + 1 :])
    )
    return transaction if made == before else journal.update(transaction, "changing")


def refuse_left(rows: Sequence[Restored]) -> None:
    """Raises ChangedMeanwhile if something that was to be put back after a trial was set by somebody else."""
    for row in rows:
        if row.outcome == "left":
            name, found = kernel_name(row.setting), value_words(row.setting, row.found)
            raise ChangedMeanwhile(
                f"{row.where}: {name} is now {found}, which napctl did not set: somebody else has changed it during "
                "the trial; left alone"
            )
