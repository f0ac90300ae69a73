"""napctl rollback: undo an applied plan."""

import click

from napctl.change.after_reset import set_again_after
from napctl.change.journal import Journal
from napctl.change.one_change import side_effects, touched
from napctl.change.recovery import restored_each
from napctl.change.takeover import dismiss_unneeded
from napctl.change.transaction import restore
from napctl.cli.history import transaction_argument
from napctl.cli.options import json_option
from napctl.cli.safe_import import load_tables
from napctl.cli.terminal import echo
from napctl.cli.text.restored import name_service, report
from napctl.model.change import Restored, Transaction
from napctl.model.errors import BadInput

IN_FORCE = ("applied", "unconfirmed", "restoring")
"""Wholly, or what is left of it after the kernel refused to undo it."""
PLANS = ("apply", "protect")
"""And what protection has made."""


@click.command(epilog="\b\nExamples:\n  napctl rollback\n  napctl rollback 7\n  napctl rollback 7 --force\n"
               "  napctl rollback --all")  # fmt: skip
@transaction_argument(lambda each: each.kind in PLANS and each.state in IN_FORCE)
@click.option("--all", "everything", is_flag=True, help="All that is in force, attachments too.")
@click.option("--force", is_flag=True, help="Also restore settings that somebody else has changed since.")
@json_option("One JSON object")
def rollback(number: int | None, everything: bool, force: bool, as_json: bool) -> int:
    """Undo an applied plan: transaction ID, or the newest that is in force; or all that napctl has changed.

    A setting that somebody else has changed since is left as it is and named: exit status 5. `napctl rollback ID
    --force` restores it, now or later.
    """
    if everything:
        if number is not None or force:
            raise click.UsageError("--all goes with neither an ID nor --force")
        return _all(as_json=as_json)
    if not Journal.exists():
        raise BadInput("nothing was ever applied here")
    if not as_json:
        load_tables()
    with Journal() as journal:
        live = journal.live()
        transaction = _newest(live) if number is None else _numbered(journal, number, force=force)
        if not force:
            _refuse_buried(transaction, live)
        with set_again_after(journal, transaction.changes) as words:
            rows = restore(journal, transaction, force=force)
        dismiss_unneeded(journal, transaction)
    if not as_json:
        echo(f"rolled back {transaction.number} on {transaction.name}")
        for line in words:
            echo(line)
    name_service([transaction])
    return report(rows, as_json=as_json)


def _all(*, as_json: bool) -> int:
    rows: list[Restored] = []
    if Journal.exists():
        if not as_json:
            load_tables()
        with Journal() as journal:
            for transaction, restored in restored_each(journal, journal.live()):
                dismiss_unneeded(journal, transaction)
                if not as_json:
                    echo(f"rolled back {transaction.title}")
                name_service([transaction])
                rows += restored
    if not rows and not as_json:
        echo("nothing is in force")
        return 0
    return report(rows, as_json=as_json)


def _newest(live: list[Transaction]) -> Transaction:
    if found := [each for each in live if each.kind == "apply" and each.state in IN_FORCE]:
        return found[-1]
    raise BadInput("no plan is in force; `napctl history` lists what was")


def _numbered(journal: Journal, number: int, *, force: bool) -> Transaction:
    found = journal.find(number)
    if found is None:
        raise BadInput(f"there is no transaction {number}; `napctl history` lists them")
    if found.kind not in PLANS:
        way = f"detach {found.pid}` undoes it" if found.state == "attached" else "recover` undoes what is left of it"
        raise BadInput(f"transaction {number} is no plan; `napctl {way}")
    if found.state == "restored" and not force:
        raise BadInput(f"transaction {number} is rolled back already; --force restores what others have set since")
    return found


def _refuse_buried(transaction: Transaction, live: list[Transaction]) -> None:
    """The way back from what was applied or attached upon it leads to its own values: that comes first."""
    for each in reversed(live):
        in_force = each.state in (*IN_FORCE, "attached")
        if in_force and each.number > transaction.number and _settings(each) & _settings(transaction):
            way = f"detach {each.pid}" if each.kind == "attach" else f"rollback {each.number}"
            raise BadInput(f"{each.title} builds on it; `napctl {way}` first")


def _settings(transaction: Transaction) -> set[tuple[int, str, str]]:
    return {
        (getattr(change, "netns", 0), change.where, name)
        for change in transaction.changes
        for name in [*touched(change), *side_effects(change)]
    }
