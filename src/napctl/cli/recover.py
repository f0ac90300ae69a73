"""napctl recover: put back what an interrupted napctl, a server or a guard that has gone left behind."""

import click

from napctl.change.journal import Journal
from napctl.change.recovery import recover as recover_journal
from napctl.cli.options import json_option
from napctl.cli.terminal import echo
from napctl.cli.text.restored import report, why_recovered
from napctl.model.change import Restored


@click.command(epilog="\b\nExample:\n  napctl recover")
@json_option("One JSON object")
def recover(as_json: bool) -> int:
    """Undo what a killed napctl or an ended server left behind.

    That is: changes of a napctl that was killed before it was done, attachments whose server has ended, and plans that
    nobody confirmed and whose guard has ended. What is attached to a running server stays, and so does an applied plan.
    Harmless to repeat.
    """
    rows: list[Restored] = []
    if Journal.exists():
        with Journal() as journal:
            for transaction, restored in recover_journal(journal):
                if not as_json:
                    echo(f"{transaction.title}: {why_recovered(transaction)}")
                rows += restored
    if not rows and not as_json:
        echo("nothing to recover")
        return 0
    return report(rows, as_json=as_json)
