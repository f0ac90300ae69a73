"""napctl apply: make a plan true, as one transaction, with a way back."""

import time
from contextlib import nullcontext
from pathlib import Path

import click

from napctl.change.guard import watched
from napctl.change.journal import Journal, state_directory
from napctl.change.one_change import altered, side_effects
from napctl.change.transaction import undisturbed
from napctl.cli.netns import netns_option
from napctl.cli.options import Duration, json_option
from napctl.cli.plan_reading import read_plan
from napctl.cli.safe_import import load_tables
from napctl.cli.terminal import echo, echo_json, note
from napctl.cli.text.restored import recover_leavings
from napctl.cli.text.settings import changed, grouped, made_rows, setting_name
from napctl.cli.text.table import paragraph, print_table
from napctl.cli.text.verdicts import show as show_verification
from napctl.cli.text.verdicts import unverified
from napctl.cli.verify import Notes, keeping
from napctl.kernel.machine_sleep import now_boot_ns
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Change, Transaction
from napctl.model.machine import SCHEMA
from napctl.model.plan import Plan
from napctl.model.value import Value
from napctl.model.verdict import Verification
from napctl.plan.apply import admitted, apply_plan
from napctl.verify.verify import Options, verify_plan


class Applied(Value, frozen=True, kw_only=True):
    """What `apply --json` prints."""

    schema: int = SCHEMA
    transaction: Transaction | None
    """None: everything was in force already."""
    altered: tuple[str, ...]
    """Settings of which a driver made another value than was asked for: "eth0: rx-usecs"."""
    verification: Verification | None = None
    """Of --verify."""


@click.command(
    epilog="\b\nExamples:\n  napctl apply eth0.toml\n  napctl apply eth0.toml --confirm-within 60s && napctl confirm\n"
    "  napctl apply eth0.toml --verify\n  napctl apply eth0.toml --dry-run"
)
@click.argument("plan", metavar="PLAN", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--confirm-within", type=Duration(least_ns=10**9, most_ns=24 * 3600 * 10**9), metavar="TIME",
              help="Put everything back after that time, unless `napctl confirm` comes first.")  # fmt: skip
@click.option("--verify", "verify_first", is_flag=True,
              help="First test it as `napctl verify` does; apply nothing that is not obeyed or does harm.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would be changed, and change nothing.")
@click.option("--force", is_flag=True, help="Apply also what exceeds the safety bounds; the history says so.")
@netns_option
@json_option("One JSON object")
def apply(
    plan: Path,
    confirm_within: int | None,
    verify_first: bool,
    dry_run: bool,
    force: bool,
    netns: NetworkNamespace,
    as_json: bool,
) -> int:
    """Put a PLAN in force (a file that `napctl plan` wrote): all of it or nothing.

    Every former value is on disk before anything is changed, each change is read back, and if a driver refuses one, the
    others are undone. Exit status 1 if a driver set another value than it was asked for, or if --verify found that the
    plan is not obeyed or does harm; then everything is as it was.
    """
    wanted = read_plan(plan)
    asked, forced = admitted(wanted, netns, force=force)
    for sentence in forced:
        note(f"napctl: forced: {sentence}")
    if dry_run or (not asked and not Journal.exists()):
        _show_untouched(asked, as_json=as_json)
        return 0
    if not as_json:
        load_tables()
    verification = _verified(wanted, netns, as_json=as_json) if verify_first and asked else None
    if verification is not None and verification.bad:
        if as_json:
            echo_json(Applied(transaction=None, altered=(), verification=verification))
        else:
            echo("not applied: everything is as it was before")
        return 1

    guarding = watched(confirm_within / 1e9, state_directory()) if confirm_within else nullcontext()
    with guarding as guard, undisturbed(), Journal() as journal:
        recover_leavings(journal, as_json=as_json)
        made = apply_plan(journal, wanted, netns, force=force, guard=guard)
    if made is None:
        _show_untouched((), as_json=as_json)
        return 0
    names = [f"{change.where}: {setting_name(name)}" for change in made.changes for name in altered(change)]
    if as_json:
        echo_json(Applied(transaction=made, altered=tuple(names), verification=verification))
    else:
        _show(made, verification)
    return 1 if names else 0


def _verified(plan: Plan, netns: NetworkNamespace, *, as_json: bool) -> Verification:
    progress = Notes()
    with keeping([device.name for device in plan.devices], as_json=as_json) as kept:
        found = verify_plan(netns, plan, kept, Options(), progress)
    progress.end()
    if not as_json:
        show_verification(found)
    return found


def _show_untouched(asked: tuple[Change, ...], *, as_json: bool) -> None:
    """Nothing to do, or nothing to be done."""
    if as_json:
        echo_json(Applied(transaction=None, altered=()))
    elif not asked:
        echo("nothing to change: the plan is in force already")
    else:
        print_table(
            ("where", "setting", "now", "planned"), grouped(row for each in asked for row in changed(each)), left=2
        )


def _show(made: Transaction, verification: Verification | None) -> None:
    rows = grouped(row for change in made.changes for row in made_rows(change))
    print_table(("where", "setting", "was", "asked", "is now"), rows, left=2)
    for change in made.changes:
        for name in altered(change):
            paragraph(f"{change.where}: the driver set another {setting_name(name)} than it was asked for")
        for name in side_effects(change):
            paragraph(f"{change.where}: the driver also changed {setting_name(name)}, which nobody asked for")
    unclear = unverified(verification) if verification else None
    if made.guard is None and unclear is None:
        echo(f"applied as {made.number}; undo with: napctl rollback {made.number}")
        return
    if unclear is not None:
        how_many, which = unclear
        paragraph(f"applied as {made.number}; {how_many}")
        paragraph(f"applied unverified: {which}")
    if made.guard is None:
        echo(f"undo with: napctl rollback {made.number}")
        return
    left_ns = made.guard.deadline_boot_ns - now_boot_ns()
    when = time.strftime("%H:%M:%S", time.localtime(time.time() + left_ns / 1e9))
    paragraph(
        f"applied as {made.number} until {when} (in {left_ns / 1e9:.0f} s): then the guard, process {made.guard.pid}, "
        "puts everything back, also if this connection or napctl has ended by then"
    )
    echo(f"keep it with: napctl confirm {made.number}")
