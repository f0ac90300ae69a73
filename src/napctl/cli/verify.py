"""napctl verify: does the NIC obey on the wire?"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from napctl.change.guard import myself, watched
from napctl.change.journal import Journal, state_directory
from napctl.change.recovery import refuse_unsettled
from napctl.cli.netns import netns_option
from napctl.cli.options import Seconds, device_names, json_option, offered
from napctl.cli.plan_reading import read_plan
from napctl.cli.safe_import import load_tables
from napctl.cli.terminal import echo_json, note, write_over
from napctl.cli.text.restored import recover_leavings
from napctl.cli.text.verdicts import show
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.plan.apply import admitted
from napctl.stats.sequential import MOST_PAIRS
from napctl.verify.verify import Keeping, Options, verify_devices, verify_plan

__all__ = ["Notes", "keeping"]


def _targets() -> list[str]:
    """What may stand where [PLAN|DEV] does."""
    return [*device_names(), *sorted(str(path) for path in Path().glob("*.toml"))]


@click.command(
    epilog="\b\nExamples:\n  napctl verify eth0\n  napctl verify eth0.toml --seconds 2\n"
    "  napctl verify eth0 --settings rx-usecs --json"
)
@click.argument("target", metavar="[PLAN|DEV]", required=False, shell_complete=offered(_targets))
@click.option(
    "--seconds", type=Seconds(min=0.1, max=3600), default=1.0, show_default=True, help="Length of a window, s."
)
@click.option("--pairs", type=click.IntRange(2, 1000), default=MOST_PAIRS, show_default=True,
              help="Pairs of windows for each setting, at most.")  # fmt: skip
@click.option("--settings", metavar="NAME[,NAME]...", help="Only these, such as rx-usecs,deferral.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of the order of the windows (default: any).")
@click.option("--force", is_flag=True, help="Also try a PLAN that goes beyond the safety bounds.")
@netns_option
@json_option("One JSON object")
def verify(
    target: str | None,
    seconds: float,
    pairs: int,
    settings: str | None,
    seed: int | None,
    force: bool,
    netns: NetworkNamespace,
    as_json: bool,
) -> int:
    """Test whether the NIC does what its settings say, under the traffic that is there.

    Each setting of a PLAN (a file, in force or not), or each that delays anything on DEV (default: on all that are up),
    is compared with another value: the one before it, or none. Windows with the one and the other take turns in random
    order until the answer is clear, or --pairs is reached; afterwards everything is as it was. It needs traffic: napctl
    makes none, and says how much would be enough. Exit status 1 if a setting is not obeyed, or does harm.

    Other commands can be used meanwhile. If one of them, or somebody else, changes these settings, the test ends: exit
    status 5.
    """
    names = tuple(name.strip() for name in settings.split(",") if name.strip()) if settings else ()
    options = Options(seconds=seconds, pairs=pairs, settings=names, seed=seed)
    plan = read_plan(target) if target is not None and _is_file(target, netns) else None
    if plan is not None:
        admitted(plan, netns, force=force)
    if not as_json:
        load_tables()
    progress = Notes()
    devices = [device.name for device in plan.devices] if plan else [target] if target else []
    with keeping(devices, as_json=as_json) as kept:
        if plan is not None:
            found = verify_plan(netns, plan, kept, options, progress)
        else:
            found = verify_devices(netns, devices, kept, options, progress)
    progress.end()
    if as_json:
        echo_json(found)
    else:
        show(found)
    return 1 if found.bad else 0


@contextmanager
def keeping(devices: list[str], *, as_json: bool) -> Iterator[Keeping]:
    """What trials on these devices (none: on all) need. Raises what recover_leavings() and refuse_unsettled() raise."""
    with watched(None, state_directory()) as guard:
        with Journal() as journal:
            recover_leavings(journal, as_json=as_json)
            refuse_unsettled(journal, devices or None)
        yield Keeping(state_directory(), guard, myself())


class Notes:
    """Progress, on standard error."""

    def __init__(self) -> None:
        self._shown = ("", "")

    def begin(self, trials: int, seconds: float) -> None:
        """How long it will take."""
        if trials:
            note(f"{trials} setting{'s' * (trials > 1)}, {_time(seconds)} at most; Ctrl-C puts everything back")

    def pair(self, device: str, setting: str, number: int, most: int) -> None:
        """On a terminal each pair, in one line that is written over; else each setting."""
        if sys.stderr.isatty():
            write_over(f"{device} {setting}: pair {number} of at most {most}")
            return
        if self._shown != (device, setting):
            note(f"{device} {setting}: at most {most} pairs of windows")
            self._shown = (device, setting)

    def end(self) -> None:
        """Clear the line."""
        if sys.stderr.isatty():
            write_over("")


def _is_file(target: str, netns: NetworkNamespace) -> bool:
    """A device's name is a device; everything else that is a file, or looks like one, is a plan."""
    if any(target in (link.name, *link.alternative_names) for link in links(netns)):
        return False
    return target == "-" or "/" in target or target.endswith(".toml") or Path(target).exists()


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
