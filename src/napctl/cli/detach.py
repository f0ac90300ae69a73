"""napctl detach: take suspension back."""

import click

from napctl.attach.attachment import attachments, napis_of, refuse_shared
from napctl.attach.attachment import detach as detach_attachments
from napctl.attach.target import find_attachments
from napctl.change.journal import Journal, state_directory
from napctl.cli.options import json_option, offered
from napctl.cli.terminal import echo
from napctl.cli.text.restored import name_service, report
from napctl.model.change import Restored, Transaction
from napctl.model.errors import BadInput


def attached_names() -> list[str]:
    """Names and process ids of what is attached."""
    live = (each for each in Journal.read(live=True) if each.kind == "attach")
    return sorted({name for each in live for name in (each.name, str(each.pid))})


@click.command(
    epilog="\b\nExamples:\n  napctl detach memcached\n  napctl detach 1234\n  napctl detach nginx.service\n"
    "  napctl detach :6379 --force\n  napctl detach --all"
)
@click.argument("target", required=False, shell_complete=offered(attached_names))
@click.option("--all", "everything", is_flag=True, help="Everything that is attached.")
@click.option("--force", is_flag=True,
              help="Also restore settings that somebody else has changed since; also after `detach`.")  # fmt: skip
@json_option("One JSON object")
def detach(target: str | None, everything: bool, force: bool, as_json: bool) -> int:
    """Undo `napctl attach TARGET`: restore every setting that it changed.

    TARGET is what `napctl attach` takes: a pid, a name, a systemd unit, a control group (/path), a container, or a port
    (:8080); a name that several servers have is refused here as there. If the server has ended: its pid or its name.

    A setting that somebody else has changed since is left as it is and named: exit status 5. `napctl detach TARGET
    --force` restores it, now or later.
    """
    if (target is None) != everything:
        raise click.UsageError("give a TARGET or --all")
    rows: list[Restored] = []
    meant: list[Transaction] = []
    if Journal.exists():
        with Journal() as journal:
            meant = _meant(journal, target, force=force) if target else attachments(journal)
            rows = detach_attachments(journal, meant, force=force)
    elif target:
        raise BadInput(f"{target}: nothing is attached to it; {state_directory()} has no journal")
    if not rows and not as_json:
        echo("nothing was attached")
        return 0
    name_service(meant)
    return report(rows, as_json=as_json)


def _meant(journal: Journal, target: str, *, force: bool) -> list[Transaction]:
    """What is attached to the target; by `force` the last attachment of it, if it is detached already."""
    live = attachments(journal)
    try:
        return find_attachments(target, live)
    except BadInput:
        if not force:
            raise
    past = find_attachments(target, [each for each in journal.all() if each.kind == "attach"])[-1:]
    refuse_shared(napis_of(past[0]), live)
    return past
