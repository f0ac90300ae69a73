"""What became of settings that were put back, for `detach`, `rollback` and `recover`."""

from collections.abc import Iterable

from napctl.change.journal import Journal
from napctl.change.recovery import recover
from napctl.cli.terminal import echo_json, note
from napctl.cli.text.keepers import is_of_service
from napctl.cli.text.settings import grouped, setting_name, value_text
from napctl.cli.text.table import print_table
from napctl.kernel import running_kernel
from napctl.model.change import Restored, Transaction
from napctl.model.errors import BadInput, ChangedMeanwhile, NapctlError
from napctl.model.machine import SCHEMA
from napctl.model.value import Value

__all__ = ["name_left", "name_service", "recover_leavings", "report", "why_recovered"]


WORDS = {
    "restored": "restored",
    "unchanged": "already so",
    "left": "left as it is",
    "gone": "gone",
}


class RestoredReport(Value, frozen=True, kw_only=True):
    """What `detach`, `rollback` and `recover` print with --json."""

    schema: int = SCHEMA
    settings: tuple[Restored, ...]


def report(rows: list[Restored], *, as_json: bool) -> int:
    """Print them and return the exit status: 5 if a setting was left alone."""
    if as_json:
        echo_json(RestoredReport(settings=tuple(rows)))
    else:
        print_table(
            ("where", "setting", "found", "former", "outcome"),
            grouped((row.where, setting_name(row.setting), *_values(row), WORDS[row.outcome]) for row in rows),
            left=2,
        )
    return ChangedMeanwhile.exit_status if name_left(rows) else 0


def name_service(transactions: Iterable[Transaction]) -> None:
    """A line on stderr for each that the service kept when it was put back by hand."""
    for each in transactions:
        if is_of_service(each):
            note(f"{each.title} was the service's, which leaves it so until its policy is changed, or asked: "
                 "`napctl policy apply`")  # fmt: skip


def recover_leavings(journal: Journal, *, as_json: bool) -> list[Restored]:
    """Put back what has no owner any more, before something new is changed, and say so."""
    rows: list[Restored] = []
    try:
        for transaction, restored in recover(journal):
            if not as_json:
                note(f"{transaction.title}: {why_recovered(transaction)}")
            rows += restored
    except BadInput:
        raise  # the journal itself cannot be read
    except NapctlError as error:
        note(f"napctl: {error}")  # what cannot be put back keeps its NAPI instances, not others, from being attached
    name_left(rows)
    return rows


def why_recovered(transaction: Transaction) -> str:
    """In words, for whom it may surprise."""
    if transaction.boot_id != running_kernel.boot_id():
        return "set before the last reboot, which has undone it"
    words = {"attached": "its server has ended", "unconfirmed": "nobody confirmed it, and its guard has ended"}
    return words.get(transaction.state, "it was interrupted")


def name_left(rows: list[Restored]) -> bool:
    """A line on stderr for each setting that was left as somebody else set it; whether there is any."""
    left = [row for row in rows if row.outcome == "left"]
    for row in left:
        now, before = _values(row)
        what = f"{row.where}: {setting_name(row.setting)} is now {now}"
        note(f"napctl: {what}; somebody else changed it, so napctl leaves it (it was {before})")
    return bool(left)


def _values(row: Restored) -> tuple[str, str]:
    """The value found and the former one."""
    return value_text(row.setting, row.found), value_text(row.setting, row.before)
