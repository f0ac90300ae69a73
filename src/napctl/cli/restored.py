"""What became of settings that were put back, for `detach` and `recover`."""

import click

from napctl.cli.settingtext import setting_name, value_text
from napctl.cli.table import print_table
from napctl.model.change import Restored
from napctl.model.errors import ChangedMeanwhile
from napctl.model.machine import SCHEMA
from napctl.model.value import Value, to_json

WORDS = {
    "restored": "restored",
    "unchanged": "was so",
    "left": "left alone",
    "gone": "gone",
}


class Report(Value, frozen=True, kw_only=True):
    """What `detach --json` and `recover --json` print."""

    schema: int = SCHEMA
    settings: tuple[Restored, ...]


def report(rows: list[Restored], *, as_json: bool) -> int:
    """Print them and return the exit status: 5 if a setting was left alone."""
    left = [row for row in rows if row.outcome == "left"]
    if as_json:
        click.echo(to_json(Report(settings=tuple(rows))))
    else:
        print_table(
            ("where", "setting", "found", "former", "outcome"),
            [(row.where, setting_name(row.setting), *_values(row), WORDS[row.outcome]) for row in rows],
            left=2,
        )
    for row in left:
        click.echo(
            "napctl: {}: {} is {} by now, which napctl did not set; left alone (it was {})".format(
                row.where, setting_name(row.setting), *_values(row)
            ),
            err=True,
        )
    return ChangedMeanwhile.exit_status if left else 0


def _values(row: Restored) -> tuple[str, str]:
    """The value found and the former one."""
    return value_text(row.setting, row.found), value_text(row.setting, row.before)
