"""napctl history: every transaction, what it changed, and what became of it."""

import time
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import click

from napctl.change.journal import Journal
from napctl.change.recovery import on_trial
from napctl.cli.options import json_option, offered
from napctl.cli.terminal import echo, echo_json
from napctl.cli.text.keepers import is_of_service, kept_by
from napctl.cli.text.settings import grouped, made_rows
from napctl.cli.text.table import ABSENT, paragraph, print_table
from napctl.model.change import Transaction
from napctl.model.errors import BadInput, NapctlError
from napctl.model.machine import SCHEMA
from napctl.model.value import Value

__all__ = ["folded", "transaction_argument"]


DAY = len("2026-11-22")
TRIAL_NS = 2 * 10**9
"""A timer that `attach` tries is in force for 0.3 s; this leaves room for a busy machine."""
WORDS = {
    "changing": "interrupted",
    "attached": "attached",
    "applied": "in force",
    "unconfirmed": "unconfirmed",
    "restoring": "interrupted",
    "restored": "undone",
}


class History(Value, frozen=True, kw_only=True):
    """What `history --json` prints."""

    schema: int = SCHEMA
    transactions: tuple[Transaction, ...]


class Id(click.IntRange):
    """The number of a transaction."""

    name = "id"

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """To a number."""
        if isinstance(value, str) and not value.isdecimal():
            self.fail(f"'{value}' is no ID of a transaction; `napctl history` lists them", param, ctx)
        return int(super().convert(value, param, ctx))


def transaction_argument(wanted: Callable[[Transaction], bool]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """[ID]: a transaction of the journal; completed with those that are `wanted`."""

    def numbers() -> list[str]:
        try:
            return [str(each.number) for each in Journal.read() if wanted(each)]
        except NapctlError:  # no right to read it: nothing to offer
            return []

    return click.argument("number", metavar="[ID]", required=False, type=Id(), shell_complete=offered(numbers))


@click.command(epilog="\b\nExamples:\n  napctl history\n  napctl history 7\n  napctl history --json")
@transaction_argument(lambda _: True)
@click.option("--verbose", is_flag=True, help="List also each timer that `attach` tried.")
@json_option("One JSON object")
def history(number: int | None, verbose: bool, as_json: bool) -> None:
    """List what was changed, when, and what became of it; or show transaction ID.

    "in force" means that napctl has not undone it; `napctl status` shows whether somebody else has changed it since.
    What was undone is kept for 90 days, and at most the newest 1,000.
    """
    recorded = [each for each in Journal.read() if number in (None, each.number)]
    if number is not None and not recorded:
        raise BadInput(f"there is no transaction {number}; `napctl history` lists them")
    if as_json:
        echo_json(History(transactions=tuple(recorded)))
    elif number is not None:
        _show(recorded[0])
    elif recorded:
        rows = [_row(each) for each in recorded] if verbose else [_folded_row(alike) for alike in folded(recorded)]
        print_table(("ID", "made", "what", "settings", "state"), rows, left=3)
        if kept := [str(each.number) for each in recorded if each.state != "restored" and is_of_service(each)]:
            paragraph(f"kept by the service: {', '.join(kept)}")
    else:
        echo("nothing was ever changed here")


def folded(recorded: Iterable[Transaction]) -> list[list[Transaction]]:
    """Each alone, but the timers that one napctl tried on one server, one after the other, together."""
    groups: list[list[Transaction]] = []
    of_one = attrgetter("boot_id", "keeper", "pid", "started_ticks")
    for each in recorded:
        if groups and _is_trial(each) and _is_trial(groups[-1][0]) and of_one(each) == of_one(groups[-1][0]):
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _is_trial(transaction: Transaction) -> bool:
    """A napctl kept it, and took it back at once."""
    lasted_ns = transaction.since_unix_ns - transaction.made_unix_ns
    kept = transaction.kind == "attach" and transaction.keeper is not None
    return kept and transaction.state == "restored" and 0 <= lasted_ns < TRIAL_NS


def _folded_row(alike: Sequence[Transaction]) -> tuple[str, ...]:
    first, last = alike[0], alike[-1]
    if first is last:
        return _row(first)
    made, what = _when(first.made_unix_ns)[: DAY + 6], f"attach {first.name}"
    return f"{first.number}-{last.number}", made, what, ABSENT, f"{len(alike)} timer trials, undone"


def _row(transaction: Transaction) -> tuple[str, ...]:
    rows = [row for change in transaction.changes for row in made_rows(change)]
    what = f"{transaction.kind} {transaction.name}"
    made, since = _when(transaction.made_unix_ns), _when(transaction.since_unix_ns)
    day = since[:DAY]
    state = f"{_state(transaction)} since {since[DAY:].strip() if made.startswith(day) else since[: DAY + 6]}"
    return str(transaction.number), made[: DAY + 6], what, str(len(rows)), state


def _state(transaction: Transaction) -> str:
    return "on trial" if transaction.state == "changing" and on_trial(transaction) else WORDS[transaction.state]


def _show(transaction: Transaction) -> None:
    since = _when(transaction.since_unix_ns)
    echo(f"{transaction.kind} {transaction.name}, made {_when(transaction.made_unix_ns)}")
    echo(f"{_state(transaction)} since {since}{', ' * bool(kept_by(transaction))}{kept_by(transaction)}")
    for sentence in transaction.forced:
        paragraph(f"forced: {sentence}")
    rows = grouped(row for change in transaction.changes for row in made_rows(change))
    print_table(("where", "setting", "was", "asked", "became"), rows, left=2)
    for each in transaction.switches:
        paragraph(f"{_when(each.unix_ns)} to {each.to}: {each.why}", rest="  ")


def _when(unix_ns: int) -> str:
    if unix_ns == 0:  # recorded by an earlier version
        return ABSENT
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_ns / 1e9))
