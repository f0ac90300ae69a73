"""napctl confirm: keep what was applied with --confirm-within."""

import click

from napctl.change.guard import dismiss
from napctl.change.journal import Journal
from napctl.cli.history import transaction_argument
from napctl.cli.terminal import echo
from napctl.cli.text.restored import recover_leavings
from napctl.kernel.machine_sleep import now_boot_ns
from napctl.model.change import Transaction
from napctl.model.errors import BadInput


@click.command(epilog="\b\nExamples:\n  napctl confirm\n  napctl confirm 7")
@transaction_argument(lambda each: each.state == "unconfirmed")
def confirm(number: int | None) -> None:
    """Keep what `napctl apply --confirm-within` applied: transaction ID, or the newest.

    Once the time is over it is too late: the guard has put everything back (exit status 2).
    """
    if not Journal.exists():
        raise BadInput("nothing was ever applied here")
    with Journal() as journal:
        recover_leavings(journal, as_json=False)  # its time may be over and its guard killed
        transaction = _newest(journal) if number is None else _numbered(journal, number)
        guard = transaction.guard
        assert guard is not None
        if now_boot_ns() > guard.deadline_boot_ns:
            raise BadInput(f"transaction {transaction.number}: too late; its guard is putting it back")
        journal.set_state(transaction.number, "applied")
    dismiss(guard)
    echo(f"confirmed {transaction.number} on {transaction.name}; undo with: napctl rollback {transaction.number}")


def _newest(journal: Journal) -> Transaction:
    if waiting := [each for each in journal.live() if each.state == "unconfirmed"]:
        return waiting[-1]
    late = [each for each in journal.all() if each.guard is not None]  # only for the message
    if not late:
        raise BadInput("nothing waits for a confirmation")
    raise _no_more(late[-1])


def _numbered(journal: Journal, number: int) -> Transaction:
    found = journal.find(number)
    if found is None:
        raise BadInput(f"there is no transaction {number}; `napctl history` lists them")
    if found.state != "unconfirmed":
        raise _no_more(found)
    return found


def _no_more(found: Transaction) -> BadInput:
    late = found.guard is not None and found.state != "applied"
    return BadInput(f"transaction {found.number} {'was put back: too late' if late else 'needs no confirmation'}")
