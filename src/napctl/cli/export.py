"""napctl export: a plan in the words of other tools, for settings that shall survive a reboot."""

from collections.abc import Collection
from pathlib import Path
from typing import get_args

import click
from msgspec.structs import replace

from napctl.cli.plan_reading import read_plan
from napctl.cli.terminal import echo_text, note
from napctl.kernel.links import links
from napctl.model.errors import BadInput
from napctl.model.plan import Plan
from napctl.plan.export import NOT_HERE, Format
from napctl.plan.export import export as export_text


@click.command(
    epilog="\b\nExamples:\n  napctl export eth0.toml --format ethtool\n"
    "  napctl export eth0.toml --format systemd-link --output 10-eth0.link\n"
    "  napctl plan eth0 --output - | napctl export - --format ansible"
)
@click.argument("plan", metavar="PLAN", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--format", "form", type=click.Choice(get_args(Format)), required=True, help="The tool.")
@click.option(
    "--device", "devices", multiple=True, metavar="DEV", help="Only that device of the plan; may be repeated."
)
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write it there.")
def export(plan: str, form: Format, devices: tuple[str, ...], output: str | None) -> None:
    """Write a PLAN for another tool: as a script, a configuration file or tasks.

    \b
    ethtool         a shell script
    systemd-link    a .link file, for one device
    networkmanager  a shell script that adds them to the active profile
    ansible         tasks that install the ethtool script and a systemd unit

    What a format cannot express stands in it as a comment: deferral of NAPI instances in all of them. Safety bounds are
    not checked: `napctl apply` does that.
    """
    text = export_text(_chosen(plan, devices), form)
    if NOT_HERE in text:
        note(f"napctl: this format cannot express a part of the plan: see the comments {NOT_HERE}")
    if output is None:
        echo_text(text)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadInput(f"{output}: {getattr(error, 'strerror', None) or error}") from None


def _chosen(path: str, names: tuple[str, ...]) -> Plan:
    plan = read_plan(path)
    there = {device.name: device for device in plan.devices}
    chosen = [name if name in there else _as_planned(name, there) for name in names]
    return replace(plan, devices=tuple(there[name] for name in dict.fromkeys(chosen))) if names else plan


def _as_planned(name: str, there: Collection[str]) -> str:
    """Another of its names, if the device is of this machine. Raises BadInput."""
    for link in links():
        others = (link.name, *link.alternative_names)
        if name in others and (found := next((other for other in others if other in there), None)):
            return found
    raise BadInput(f"{name}: not in the plan, which has {', '.join(there) or 'no device'}")
