"""napctl why: the last decisions of the service about a target or a device, with their figures."""

import time

import click

from napctl.cli.options import json_option
from napctl.cli.pause import asked
from napctl.cli.terminal import echo, echo_json
from napctl.model.errors import BadInput
from napctl.service.control import Request


@click.command(epilog="\b\nExamples:\n  napctl why\n  napctl why nginx.service\n  napctl why eth0 --json")
@click.argument("name", metavar="[TARGET|DEV]", required=False, default="")
@json_option("One JSON object for each decision")
def why(name: str, as_json: bool) -> None:
    """What the running service has decided last about a target, as the policy names it, or about a device.

    Without a name: about itself, and of what else there is something to tell.
    """
    answer = asked(Request(what="why", about=name))
    if name and not answer.decisions:
        there = ", ".join(each for each in answer.lines if each) or "nothing"
        raise BadInput(f"{name}: the service has decided nothing about it; it has about {there}")
    for decision in answer.decisions:
        if as_json:
            echo_json(decision)
        else:
            clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(decision.unix_ns / 1e9))
            echo(f"{clock} {decision.text}")
    if not name and not as_json and (others := [each for each in answer.lines if each]):
        echo(f"also about: {', '.join(others)}")
