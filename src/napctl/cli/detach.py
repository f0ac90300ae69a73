"""napctl detach: take suspension back."""

import click

from napctl.attach.attach import attachments
from napctl.attach.attach import detach as detach_attachments
from napctl.attach.target import find_attachments
from napctl.change.journal import Journal, state_directory
from napctl.cli.options import json_option, offered
from napctl.cli.restored import report
from napctl.cli.terminal import echo
from napctl.model.change import Restored
from napctl.model.errors import BadInput


def attached_names() -> list[str]:
    """Names and process ids of what is attached."""
    live = (each for each in Journal.read() if each.kind == "attach" and each.state != "restored")
    return sorted({name for each in live for name in (each.name, str(each.pid))})


@click.command(epilog="\b\nExamples:\n  napctl detach memcached\n  napctl detach 1234\n  napctl detach --all")
@click.argument("target", required=False, shell_complete=offered(attached_names))
@click.option("--all", "everything", is_flag=True, help="Everything that is attached.")
@click.option(
    "--force",
    is_flag=True,
    help="Also overwrite settings that somebody else has changed since; to be given at once, as detaching forgets.",
)
@json_option("One JSON object")
def detach(target: str | None, everything: bool, force: bool, as_json: bool) -> int:
    """Restore every setting that attaching TARGET (a pid or a name) had changed, also if the server has gone.

    A setting that somebody else has changed since is left alone and named: exit status 5.
    """
    if (target is None) != everything:
        raise click.UsageError("give a TARGET or --all")
    rows: list[Restored] = []
    if Journal.exists():
        with Journal() as journal:
            live = attachments(journal)
            rows = detach_attachments(journal, find_attachments(target, live) if target else live, force=force)
    elif target:
        raise BadInput(f"{target}: nothing is attached to it; {state_directory()} has no journal")
    if not rows and not as_json:
        echo("nothing was attached")
        return 0
    return report(rows, as_json=as_json)
