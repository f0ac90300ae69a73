"""napctl plan: propose settings for a goal, with reasons and bounds; write them to a file for `apply`."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import click
from msgspec.structs import replace

from napctl.cli.adaptive_options import adaptive_options, range_of, refuse_without_profile
from napctl.cli.netns import netns_option, netns_words
from napctl.cli.options import Duration, device_names, devices_argument, json_option, offered
from napctl.cli.terminal import echo, echo_json, echo_text, note
from napctl.cli.text.settings import setting_name, value_text
from napctl.cli.text.table import paragraph, print_table
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import BadInput
from napctl.model.limits import MOST_ADDED_LATENCY_NS
from napctl.model.machine import Device, Machine
from napctl.model.plan import Advice, Deferral, GoalName, Proposal
from napctl.model.units import duration_text
from napctl.observe.machine import WHO_POLLS, take_machine
from napctl.observe.window import run_window
from napctl.plan.file import plan_text
from napctl.plan.goals import GOALS, Goal
from napctl.plan.propose import ANY_DEVICE, propose, worth_planning

__all__ = ["not_supported"]


FASTEST_MBPS = 10**7


class Speed(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """[DEV=]SPEED, such as eth0=25000 or 10G, as (device or ANY_DEVICE, Mb/s)."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """To Mb/s; a name may hold an equals sign, a speed does not."""
        if isinstance(value, tuple):
            return value
        device, _, speed = value.rpartition("=")
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([GM]?)", speed, re.IGNORECASE)
        mbps = int(Decimal(match[1]) * (1000 if match[2].upper() == "G" else 1)) if match else 0
        if not 1 <= mbps <= FASTEST_MBPS:
            self.fail(f"'{speed}' is no link speed in Mb/s or with its unit, such as 25000 or 10G", param, ctx)
        return device or ANY_DEVICE, mbps


def _summary(goal: Goal) -> str:
    return goal.summary if goal.threads else f"{goal.summary}; {duration_text(goal.budget_ns)}"


@click.command(
    epilog="\b\nExamples:\n  napctl plan\n  napctl plan eth0 --goal latency --max-added-latency 5us\n"
    "  napctl plan eth0 --speed eth0=10G --output eth0.toml\n"
    "  napctl plan eth0 --goal efficiency --adaptive --range 5us..100us\n"
    "  napctl apply eth0.toml --confirm-within 60s"
)
@devices_argument
@click.option("--goal", "goal_name", type=click.Choice(get_args(GoalName)), default="balanced", show_default=True,
              help="What the settings are for: "
              + ", ".join(f"{goal.name} ({_summary(goal)})" for goal in GOALS.values())
              + ". The time is what packets may be delayed by.")  # fmt: skip
@click.option("--max-added-latency", "budget_ns", type=Duration(most_ns=MOST_ADDED_LATENCY_NS), metavar="TIME",
              help="Latency that hardware and software together may add, instead of the goal's.")  # fmt: skip
@adaptive_options
@click.option("--speed", "given", type=Speed(), multiple=True, metavar="[DEV=]SPEED",
              shell_complete=offered(lambda: [f"{name}=" for name in device_names()]),
              help="Link speed that a driver does not report: 10G, 25000, eth0=10G. For all devices without one, or "
              "for one; of two the faster counts.")  # fmt: skip
@click.option("--window", "window_ns", type=Duration(most_ns=60 * 10**9), default="2s", show_default=True,
              help="Measure that long, to tell what it would do to the traffic of now; 0 for not.")  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE",
              help="Write the plan there, - for standard output (and nothing else).")  # fmt: skip
@netns_option
@json_option("One JSON object")
def plan(
    devices: tuple[str, ...],
    goal_name: GoalName,
    budget_ns: int | None,
    given: tuple[tuple[str, int], ...],
    window_ns: int,
    output: str | None,
    netns: NetworkNamespace,
    as_json: bool,
    **adaptive: Any,
) -> int:
    """Propose interrupt coalescing and deferral for a goal. Nothing is changed.

    For network hardware that is up, or the named devices. Each setting comes with its reason, with the bound that keeps
    it from going further, and with where the inputs were read. Only what the driver has is proposed, and nothing is
    computed from what is not known: exit status 1 if such an input must be given.
    """
    if as_json and output == "-":
        raise click.UsageError("--json and --output - both want standard output")
    between = range_of(**adaptive)
    goal = GOALS[goal_name]
    if between is not None and goal.threads:
        raise click.UsageError(f"--adaptive is about delays, which --goal {goal.name} leaves as they are")
    machine = _machine(netns, devices)
    if between is not None:
        refuse_without_profile(machine.devices, named=bool(devices))
    speeds = _speeds(given, machine)
    advice = propose(machine, None, goal, budget_ns, speeds, between)
    if advice.proposals and window_ns:
        note(f"measuring for {duration_text(window_ns)}; nothing is changed")
        window = run_window(netns, window_ns / 1e9, [device.name for device in machine.devices])
        advice = propose(machine, window, goal, budget_ns, speeds, between)
    if output is not None and output != "-":
        _write(output, advice)
    if output == "-":
        echo_text(plan_text(advice.plan, advice.proposals))
        for sentence in advice.missing:
            note(f"napctl: {sentence}")
    elif as_json:
        echo_json(advice)
    else:
        _show(advice, machine, goal)
        _show_next(advice, output, netns_words())
    return 1 if advice.missing else 0


def _machine(netns: NetworkNamespace, names: tuple[str, ...]) -> Machine:
    """With the devices to plan for."""
    machine = take_machine(netns, tuple(dict.fromkeys(names)))
    return machine if names else replace(machine, devices=worth_planning(machine.devices))


def _speeds(given: Iterable[tuple[str, int]], machine: Machine) -> Mapping[str, int]:
    own = {name: each.name for each in machine.devices for name in (each.name, *each.alternative_names)}
    own[ANY_DEVICE] = ANY_DEVICE
    for name, _ in given:
        if name not in own:
            planned = ", ".join(sorted(device.name for device in machine.devices)) or "nothing"
            raise BadInput(f"--speed {name}=…: no plan is made for {name}, but for {planned}")
    return {own[name]: speed for name, speed in given}


def _write(file: str, advice: Advice) -> None:
    try:
        Path(file).write_text(plan_text(advice.plan, advice.proposals), encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadInput(f"{file}: {getattr(error, 'strerror', None) or error}") from None


# What people see.


def _show(advice: Advice, machine: Machine, goal: Goal) -> None:
    budget = duration_text(advice.plan.max_added_latency_ns)
    delays = "delays stay as they are" if goal.threads else f"packets may be delayed by up to {budget}"
    _paragraph(f"goal {goal.name}: {goal.summary}; {delays}")
    if not machine.devices:
        _paragraph("no network hardware here is up and has something to set; name a device to plan for it")
    for device in machine.devices:
        echo()
        _show_device(advice, device)
    if advice.left or advice.missing:
        echo()
    for sentence in advice.left:
        _paragraph(f"left as it is: {sentence}")
    for sentence in advice.missing:
        _paragraph(f"missing: {sentence}")
    for sentence in machine.lacks:
        if advice.proposals or not sentence.startswith(WHO_POLLS):  # which nobody needs to know who changes nothing
            _paragraph(f"not known: {sentence}")


def _show_device(advice: Advice, device: Device) -> None:
    speed = f"{device.speed_mbps:,} Mb/s" if device.speed_mbps else "speed unknown"
    echo(f"{device.name}: {device.driver or 'driver unknown'}, {speed}")
    proposals = [proposal for proposal in advice.proposals if proposal.device == device.name]
    if proposals:
        print_table(("setting", "now", "proposed"), [_row(proposal) for proposal in proposals], indent=2)
    else:
        echo("  nothing to propose")
    for proposal in proposals:
        _show_reasons(proposal)
    for sentence in not_supported(advice, device):
        _paragraph(sentence, 2)


def not_supported(advice: Advice, device: Device) -> Iterator[str]:
    """What would be proposed: what the driver has no setting for, and deferral, which is the NAPI instances'."""
    lacking = [proposal for proposal in advice.unsupported if proposal.device == device.name]
    kernel = "by this kernel per NAPI instance (Linux 6.13 has it)" if device.napis else "here (no NAPI instance)"
    for where, deferral in (("by this driver", False), (kernel, True)):
        mine = [each for each in lacking if (each.setting in Deferral.__struct_fields__) is deferral]
        if mine:
            yield f"not supported {where}: {', '.join(setting_name(each.setting) for each in mine)}"


def _row(proposal: Proposal) -> tuple[str, str, str]:
    now = "differing" if proposal.now is None else value_text(proposal.setting, proposal.now)
    return setting_name(proposal.setting), now, value_text(proposal.setting, proposal.proposed)


def _show_reasons(proposal: Proposal) -> None:
    _paragraph(f"{setting_name(proposal.setting)}: {proposal.why}", 2)
    _paragraph(f"at most: {proposal.bound}", 4)
    _paragraph(f"from: {'; '.join(proposal.sources)}", 4)


def _show_next(advice: Advice, output: str | None, netns: str) -> None:
    """What to do with the plan."""
    with_care = "--verify" if GOALS[advice.plan.goal].threads else "--confirm-within 60s"
    if output is not None:
        echo()
        echo("the plan is written; look at it, then:")
        echo(f"  napctl apply {shlex.quote(output)} {with_care}{netns}")
    elif advice.proposals:
        echo()
        echo("nothing is written; to have the plan in a file, add --output FILE; then:")
        echo(f"  napctl apply FILE {with_care}{netns}")


def _paragraph(text: str, indent: int = 0) -> None:
    """What follows the first line stands further in."""
    paragraph(text, first=" " * indent, rest=" " * (indent + 2))
