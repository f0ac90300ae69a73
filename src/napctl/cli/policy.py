"""napctl policy: write down once how packets shall be taken, read that, and say what is not so."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
from msgspec.structs import replace

from napctl.attach.target import parse, resolve
from napctl.attach.units_and_containers import service_of
from napctl.change.journal import Journal, state_directory
from napctl.cli.netns import netns_option, netns_words
from napctl.cli.options import json_option
from napctl.cli.terminal import echo, echo_json, echo_text
from napctl.cli.text.policy_summary import policy_lines
from napctl.cli.text.settings import grouped, setting_name, value_text
from napctl.cli.text.table import paragraph, print_table
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Transaction
from napctl.model.drift import Drift, Drifted
from napctl.model.errors import BadInput, NapctlError
from napctl.observe.machine import take_machine
from napctl.plan.goals import GOALS
from napctl.plan.propose import propose, worth_planning
from napctl.service.control import Request, ask_service
from napctl.service.drift import find_drift
from napctl.service.once import made_true_once
from napctl.service.policy_file import POLICY_PATH, drop_ins, read_policy
from napctl.service.policy_text import policy_in_force, policy_text

FILE = click.argument(
    "file", metavar="[FILE]", type=click.Path(dir_okay=False, path_type=Path), default=POLICY_PATH, required=False
)


@click.group(
    epilog="\b\nExamples:\n  napctl policy init\n  napctl policy check\n"
    "  napctl policy drift || echo 'not as it should be'"
)
def policy() -> None:
    """Write down once how packets shall be taken on this machine, and see what is not so.

    A policy is /etc/napctl/policy.toml and, beside it, policy.d/*.toml, read in order: servers that are to be attached,
    devices with a goal or with settings, and how the service behaves. docs/policy.md has all keys.
    """


@policy.command(epilog="\b\nExamples:\n  napctl policy init\n  napctl policy init --output -")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    default=str(POLICY_PATH),
    show_default=True,
    help="Write it there; - for standard output. What is there is never overwritten.",
)
@netns_option
def init(output: str, netns: NetworkNamespace) -> None:
    """Write a policy of what is attached and applied now, with comments.

    For network hardware that has no applied plan, what `napctl plan` would propose stands there as a comment.
    """
    live = Journal.read(live=True)
    machine = take_machine(netns)
    bare = replace(machine, devices=worth_planning(machine.devices))
    wanted = policy_in_force(live, netns.inode, dict(_services(live)))
    text = policy_text(wanted, propose(bare, None, GOALS["balanced"], None, {}))
    if output == "-":
        echo_text(text)
        return
    _create(Path(output), text)
    echo(f"{output}: {_counted(len(wanted.attach), len(wanted.devices))}; look at it, then:")
    other = "" if output == str(POLICY_PATH) else f" {output}"
    echo(f"  napctl policy check{other} && napctl policy drift{other}{netns_words()}")


def _services(live: list[Transaction]) -> Iterator[tuple[int, str]]:
    """The service of each attached process whose first process it is: others of the service would be attached too."""
    for each in live:
        with suppress(NapctlError):
            if (unit := service_of(each.pid)) is not None and resolve(parse(unit))[0].pid == each.pid:
                yield each.pid, unit


def _create(path: Path, text: str) -> None:
    if path == POLICY_PATH:
        path.parent.mkdir(mode=0o755, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise BadInput(f"{path}: it is there already, and is not overwritten; --output names another file") from None
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # the last: a NUL in the name
        raise BadInput(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(text)
    except BaseException:
        path.unlink()
        raise


def _counted(targets: int, devices: int) -> str:
    return f"{targets} target{'s' * (targets != 1)}, {devices} device entr{'y' if devices == 1 else 'ies'}"


@policy.command(epilog="\b\nExamples:\n  napctl policy check\n  napctl policy check new.toml --json")
@FILE
@json_option("One JSON object: the policy as it was read")
def check(file: Path, as_json: bool) -> None:
    """Read a policy, strictly, and say what it means.

    Whatever is wrong is one line with file and line, and exit status 2. FILE may have drop-ins in a directory of its
    name: policy.d/*.toml for policy.toml. Nothing is changed, and no device or server has to be there.
    """
    found = read_policy(file)
    if as_json:
        echo_json(found)
        return
    more = len(drop_ins(file))
    beside = f" and {more} drop-in{'s' * (more != 1)}" if more else ""
    echo(f"{file}{beside}: valid: {_counted(len(found.attach), len(found.devices))}")
    for line in policy_lines(found):
        paragraph(line, first="  ", rest="    ")


@policy.command(
    epilog="\b\nExamples:\n  napctl policy drift\n  napctl policy drift --json | jq -r '.differences[].words'"
)
@FILE
@netns_option
@json_option("One JSON object")
def drift(file: Path, netns: NetworkNamespace, as_json: bool) -> int:
    """Say what of this machine differs from the policy.

    One line for each difference, with the entry that wants it; exit status 0 if there is none, else 1. A target that
    does not run, or has no connection yet, and a device that is not there are waited for, and are no difference. No
    service has to run; nothing is changed.
    """
    found = find_drift(read_policy(file), netns)
    if as_json:
        echo_json(found)
    else:
        for each in found.differences:
            echo(str(each))
        _show_rest(found)
        if not found.differences:
            echo("as the policy wants it")
    return 1 if found.differences else 0


@policy.command(epilog="\b\nExample:\n  napctl policy diff")
@FILE
@netns_option
@json_option("One JSON object, as of drift")
def diff(file: Path, netns: NetworkNamespace, as_json: bool) -> None:
    """Show what would be changed to make the policy true, as a table. Nothing is changed."""
    found = find_drift(read_policy(file), netns)
    if as_json:
        echo_json(found)
        return
    if found.differences:
        print_table(("where", "setting", "now", "policy"), grouped(map(_row, found.differences)), left=2)
    _show_rest(found)
    if not found.differences:
        echo("nothing to change")


def _row(each: Drifted) -> tuple[str, str, str, str]:
    if each.setting is None:
        return each.where, "attached", "no", "yes"
    found, wanted = (value_text(each.setting, value) for value in (each.found, each.wanted))
    return each.where, setting_name(each.setting), found, wanted


def _show_rest(found: Drift) -> None:
    for sentence in found.waiting:
        echo(f"waiting: {sentence}")
    for sentence in found.notes:
        echo(f"not compared: {sentence}")


@policy.command(epilog="\b\nExamples:\n  napctl policy apply\n  napctl policy apply ./new.toml")
@FILE
@netns_option
def apply(file: Path, netns: NetworkNamespace) -> int:
    """Make the policy true: what was left to others, or was detached by hand, is tried anew.

    A running service is asked to do so. Without one, the policy is made true once, and nobody follows it afterwards:
    what is set stays until `napctl detach` and `napctl rollback`. Exit status 1 if not all of it could be made so.
    """
    answer = ask_service(state_directory(), Request(what="apply"))
    if answer is not None:
        if answer.error:
            raise NapctlError(answer.error)
        for line in answer.lines:
            echo(line)
        return 0
    problems = 0
    for about, line, good in made_true_once(read_policy(file), state_directory(), netns):
        echo(line if line.startswith(f"{about}: ") else f"{about}: {line}")
        problems += not good
    return 1 if problems else 0
