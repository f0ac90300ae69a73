"""napctl attached: what is attached, since when, and what it does right now."""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import click

from napctl.attach.activity import Meter
from napctl.attach.attached_devices import thread_nice
from napctl.change.journal import Journal
from napctl.cli.options import Seconds, json_option
from napctl.cli.stop_signals import Stop
from napctl.cli.terminal import echo, echo_json, live, note
from napctl.cli.text.activity import mode_line, now_lines, protected_line, verdict_line
from napctl.cli.text.keepers import kept_by
from napctl.cli.text.settings import counted
from napctl.cli.text.table import number, percent, wrapped
from napctl.model.activity import Now, Standing
from napctl.model.change import Transaction
from napctl.model.errors import NapctlError
from napctl.model.machine import SCHEMA
from napctl.model.modes import mode_of
from napctl.model.value import Value

__all__ = ["Report"]


class Report(Value, frozen=True, kw_only=True):
    """What `attached --json` prints: one for each interval."""

    schema: int = SCHEMA
    seconds: float
    attachments: tuple[Standing, ...]


@click.command(
    epilog="\b\nExamples:\n  napctl attached\n  napctl attached --watch\n"
    "  napctl attached --json | jq -r '.attachments[].verdict'"
)
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C, one window after the other.")
@click.option("--interval", type=Seconds(min=0.05, max=3600), default=1.0, show_default=True,
              help="Length of a window, s.")  # fmt: skip
@json_option("One JSON object per window")
def attached(watch: bool, interval: float, as_json: bool) -> int:
    """List what is attached, since when, and whether it works right now.

    Measures for a second who polls, how long interrupts are suspended, and how many polls are empty. Exit status 1 if
    suspension is not active somewhere, or a queue starves.
    """
    live = _attachments()
    if not live:
        if as_json:
            echo_json(Report(seconds=0, attachments=()))
        else:
            echo("nothing is attached")
        return 0
    stop = Stop()
    if not (watch or as_json) and interval > 2:
        note(f"measuring for {interval:g} s")
    with Meter(live) as meter:
        reports = _reports(meter, live, stop, interval, endless=watch)
        if as_json:
            worst = _print_json(reports)
        elif watch and sys.stdout.isatty():
            worst = _show_live(reports)
        else:
            worst = 0
            for report in reports:
                worst = _bad(report)
                for line in _lines(report):
                    echo(line)
                sys.stdout.flush()
    return worst


def _attachments() -> list[Transaction]:
    return [each for each in Journal.read(live=True) if each.kind == "attach" and each.state == "attached"]


def _reports(meter: Meter, live: list[Transaction], stop: Stop, interval: float, *, endless: bool) -> Iterator[Report]:
    due = time.monotonic()
    while True:
        due += interval
        start = time.monotonic()
        stop.sleep_until(due)
        standing = tuple(_standing(each, now) for each, (now, _) in zip(live, meter.read(), strict=True))
        yield Report(seconds=time.monotonic() - start, attachments=standing)
        if stop.asked or not endless:
            return


def _standing(transaction: Transaction, now: Now) -> Standing:
    return Standing(
        **{field: getattr(now, field) for field in Now.__struct_fields__},
        transaction=transaction,
        mode=mode_of(transaction.changes),
        kept_by=transaction.keeper.pid if transaction.keeper else None,
        protects=transaction.suspends and now.verdict in ("active", "quiet", "not measured"),
        thread_nice=_thread_nice(transaction),
    )


def _thread_nice(transaction: Transaction) -> int | None:
    """Of one that suspends, whose threads can end that. A device may go while it is asked for."""
    with suppress(NapctlError, OSError):
        return thread_nice(transaction) if transaction.suspends else None
    return None


def _print_json(reports: Iterator[Report]) -> int:
    worst = 0
    for report in reports:
        worst = _bad(report)
        echo_json(report)
        sys.stdout.flush()
    return worst


def _show_live(reports: Iterator[Report]) -> int:
    worst, last = 0, []
    with live() as show:
        for report in reports:
            worst, last = _bad(report), list(_lines(report))
            show(last)
    for line in last:
        echo(line)
    return worst


def _bad(report: Report) -> int:
    return int(any(each.verdict in ("not active", "starving", "gone") for each in report.attachments))


def _lines(report: Report) -> Iterator[str]:
    for each in report.attachments:
        transaction = each.transaction
        what = counted(change.where for change in transaction.changes)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(transaction.made_unix_ns / 1e9))
        kept = kept_by(transaction)
        yield from wrapped(f"{transaction.title}: since {since}: {what}{', ' * bool(kept)}{kept}", rest="  ")
        if line := mode_line(transaction.changes):
            yield from wrapped(line, first="  ", rest="    ")
        yield from wrapped(verdict_line(transaction.name, each, transaction.changes), first="  ", rest="    ")
        if each.packets_per_second is not None:
            yield from wrapped(
                f"{number(each.packets_per_second)} packets/s, {number(each.interrupts_per_second)} interrupts/s, "
                f"{percent(each.empty_poll_share)} of polls empty",
                first="  ", rest="    ",
            )  # fmt: skip
        for line in now_lines(each):
            yield from wrapped(line, first="  ", rest="    ")
        if each.protects:
            yield from wrapped(protected_line(each.thread_nice), first="  ", rest="    ")
        for lack in each.lacks:
            yield from wrapped(f"not known: {lack}", first="  ", rest="    ")
