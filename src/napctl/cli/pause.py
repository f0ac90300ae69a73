"""napctl pause: for an incident, take back what the service has set, and keep it out for a while."""

import click

from napctl.change.journal import state_directory
from napctl.cli.options import Duration
from napctl.cli.terminal import echo
from napctl.model.errors import BadInput, NapctlError
from napctl.service.control import Answer, Request, ask_service

__all__ = ["asked"]


@click.command(epilog="\b\nExamples:\n  napctl pause 30m\n  napctl pause --end")
@click.argument(
    "time_ns", metavar="[TIME]", type=Duration(least_ns=10**9, most_ns=7 * 24 * 3600 * 10**9), required=False
)
@click.option("--end", is_flag=True, help="Go on before the time is over.")
def pause(time_ns: int | None, end: bool) -> None:
    """Put everything back that the service has set, and let it stay out for TIME.

    Then it goes on by itself, and after a reboot at once.
    """
    if end == (time_ns is not None):
        raise click.UsageError("give a TIME, such as 30m, or --end")
    request = Request(what="resume") if end else Request(what="pause", seconds=(time_ns or 0) / 1e9)
    for line in asked(request).lines:
        echo(line)


def asked(request: Request) -> Answer:
    """What the running service answers. Raises BadInput if none runs, NapctlError for its refusal."""
    answer = ask_service(state_directory(), request)
    if answer is None:
        raise BadInput("no napctl daemon runs here; `systemctl start napctl` starts it")
    if answer.error:
        raise NapctlError(answer.error)
    return answer
