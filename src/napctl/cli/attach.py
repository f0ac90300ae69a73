"""napctl attach: give a running server IRQ suspension, or the next best, and say what really happens then."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import click
from msgspec.structs import replace

from napctl.attach.activity import measured
from napctl.attach.attach_options import AttachOptions, options_of
from napctl.attach.attach_target import attach_target, in_best_mode, several_queues
from napctl.attach.attachment import detach, planned, refuse_second
from napctl.attach.inspect_target import examine
from napctl.attach.judge_target import JudgedTarget, judge_target, unfit_words
from napctl.attach.mode_sweep import offered
from napctl.attach.starving import take_back
from napctl.attach.target import Target, complete, parse, resolve
from napctl.change.journal import Journal
from napctl.change.recovery import orphaned
from napctl.change.transaction import undisturbed
from napctl.cli.attach_options import attach_options
from napctl.cli.follow import stay_attached
from napctl.cli.options import Duration, json_option
from napctl.cli.safe_import import load_tables
from napctl.cli.terminal import echo, echo_json, note
from napctl.cli.text.activity import mode_line, now_lines, verdict_line
from napctl.cli.text.fitness import show_changes, show_fitness, show_placements, show_timer
from napctl.cli.text.next_best import show_next_best, show_offers
from napctl.cli.text.restored import name_left, recover_leavings
from napctl.cli.text.settings import changed, counted, grouped
from napctl.cli.text.table import paragraph, print_table
from napctl.cli.text.window import napi_lines
from napctl.kernel.processes import Process
from napctl.model.activity import Attached, Now, only
from napctl.model.errors import NapctlError
from napctl.model.modes import OF_INSTANCES
from napctl.model.next_best import NextBest, Offer
from napctl.model.units import duration_text

MOST_NAPIS = 8
"""Of which each has its own picture."""


@click.command(
    epilog="\b\nExamples:\n  napctl attach memcached\n  napctl attach nginx --steer --stay\n"
    "  napctl attach memcached --stay --latency-budget 150us\n"
    "  napctl attach nginx.service --dry-run\n  napctl attach :6379 --defer-us 50\n"
    "  napctl attach caddy --mode thread\n  napctl attach 1234 --window 0s --json"
)
@click.argument("target", shell_complete=lambda _context, _parameter, word: complete(word))
@click.option("--dry-run", is_flag=True, help="Change nothing: say what would be done, and why.")
@click.option("--stay", is_flag=True, help="Follow the target through reloads, restarts and link resets, until Ctrl-C.")
@attach_options
@click.option("--window", "window_ns", type=Duration(most_ns=3600 * 10**9), default="1s", show_default=True,
              help="How long to measure afterwards; 0: not at all.")  # fmt: skip
@json_option("One JSON object; with --stay one for each event")
def attach(target: str, dry_run: bool, stay: bool, window_ns: int, as_json: bool, **values: Any) -> int:
    """Give a running server (TARGET) IRQ suspension, without stopping or changing it.

    TARGET is a pid, a name, a systemd unit, a control group (/path), a container (container:NAME, its id, or
    container:image=IMAGE), or a port (:8080); its workers and children are part of it. Write kind:value (name:, unit:,
    cgroup:, port:) where that is not clear.

    Each epoll instance of TARGET is judged. Those that fit get prefer_busy_poll, and the NAPI instances that feed them
    get deferral and suspension. A server that waits in io_uring alone, or in a blocking read, gets busy polling
    instead, which costs CPU time while there is traffic. Every former value is on disk before anything is changed;
    `napctl detach` restores it. Where suspension does not fit, napctl says why (exit status 3), tries each mode that
    does for twice 0.3 s and says what it costs; --mode applies it.

    Then napctl measures what happens: exit status 1 if the server does not poll, or if a queue starves, which is
    detached at once (unless --force). Interrupted before that is over, napctl detaches everything again.
    """
    meant, options = parse(target), options_of(values, stays=stay)
    if dry_run and stay:
        raise click.UsageError("--dry-run changes nothing, so there is nothing to stay for")
    if dry_run:
        return _explain(meant, options, as_json=as_json)
    if stay:
        _refuse_second(resolve(meant))  # what cannot be is refused; a target that comes back later is waited for
        return stay_attached(meant, options, as_json=as_json)
    processes = resolve(meant)
    if not as_json:
        load_tables()
    in_force: list[Attached] = []
    try:
        with Journal() as journal:
            with undisturbed():
                recovered = recover_leavings(journal, as_json=as_json)
            judged = judge_target(meant.text, processes, options)
            found: NextBest | None = None
            if not (as_json and options.mode == "suspend"):
                show = partial(_show_next_best, target=target, as_json=as_json)
                judged, options, found = in_best_mode(journal, judged, options, note, show=show, measure=window_ns > 0)
            attached = attach_target(journal, judged, options, note, in_force=in_force.append)
            attached = replace(attached, next_best=found)
        if not as_json:
            _show_attached(attached)
        report = _measured(replace(attached, recovered=tuple(recovered)), processes, window_ns, force=options.force)
    except (KeyboardInterrupt, SystemExit):
        _detach_again(in_force)
        raise
    if as_json:
        echo_json(report)
    else:
        _show(report)
    return 1 if report.verdict in ("not active", "starving") else 0


def _refuse_second(found: tuple[Process, ...]) -> None:
    if Journal.exists():
        with Journal() as journal:
            refuse_second(found, [each for each in journal.live() if not orphaned(each)])


def _explain(meant: Target, options: AttachOptions, *, as_json: bool) -> int:
    """Everything that attaching would do. Exit status 1: nothing would be attached."""
    target = judge_target(meant.text, resolve(meant), options)
    offers = offered(target, options).offers
    if as_json:
        echo_json(replace(target.fitness, next_best=offers))
        return int(target.choice.empty)
    if options.mode in OF_INSTANCES:
        show_placements(target.fitness)  # the rest is of suspension
    else:
        show_fitness(target.fitness)
    if target.choice.empty:
        return _explain_unfit(target, options, offers)
    changes = planned(target, options.suspension)
    show_changes(changes)
    if line := mode_line(changes):
        paragraph(line)
    if options.timer_ns is None and target.choice.mode != "thread":
        paragraph("gro-flush-timeout: `attach` tries several under the traffic that is there, and takes the best")
    for warning in target.warnings:
        paragraph(warning)
    echo("nothing was changed")
    return 0


def _explain_unfit(target: JudgedTarget, options: AttachOptions, offers: Sequence[Offer]) -> int:
    if target.choice.mode in OF_INSTANCES:
        paragraph(f"mode {target.choice.mode} does not fit: {unfit_words(target)}")
    elif any(each.fits for each in offers):
        tries = "; `--mode auto` would take the best of it" if options.mode == "auto" else ""
        paragraph(f"what fits instead of suspension, with --mode{tries}:")
        show_offers(offers)
    echo("nothing would be attached" + ("" if options.steer or not target.fitness.steering else "; see --steer"))
    return 1


def _show_next_best(found: NextBest, *, target: str, as_json: bool) -> None:
    """As JSON the report has it."""
    if not as_json:
        show_next_best(found, target)


def _measured(attached: Attached, processes: tuple[Process, ...], window_ns: int, *, force: bool) -> Attached:
    """With what it does in a window from now; what starves then is taken back."""
    transaction = attached.transaction
    warnings = [*attached.warnings, *several_queues(transaction)]
    now, window = Now(verdict="not measured"), None
    back: tuple[str, ...] = ()
    if window_ns > 2e9:
        note(f"measuring for {duration_text(window_ns)}")
    try:
        if window_ns:
            now, window = measured(transaction, window_ns / 1e9)
    except (NapctlError, OSError) as error:
        warnings.append(f"attached, but not measured: {error}")
    if now.starving and not force:
        # By who is fed by then: steered connections came after the examination.
        found = examine(attached.fitness.target, processes)
        with Journal() as journal:
            undone, restored = take_back(journal, transaction, found, now)
        name_left(list(restored))
        back = tuple(change.where for change in undone)
    return replace(
        attached,
        **{field: getattr(now, field) for field in Now.__struct_fields__},
        window=window and only(window, transaction),
        warnings=tuple(warnings),
        taken_back=back,
    )


def _detach_again(in_force: list[Attached]) -> None:
    """An attach that is interrupted while it measures leaves nothing changed, as at any other moment."""
    for attached in in_force:
        transaction = attached.transaction
        with undisturbed(), Journal() as journal:
            detach(journal, [each for each in journal.live() if each.number == transaction.number])
        note(f"{transaction.name} ({transaction.pid}): detached again")


def _show_attached(attached: Attached) -> None:
    transaction = attached.transaction
    what = counted(change.where for change in transaction.changes)
    paragraph(f"attached {transaction.title}: {what}, in {attached.attach_seconds * 1000:.0f} ms", rest="  ")
    rows = grouped(row for change in transaction.changes for row in changed(change))
    print_table(("where", "setting", "was", "is now"), rows, indent=2, left=2)
    if line := mode_line(transaction.changes):
        paragraph(line, rest="  ")
    if attached.timer.trials:
        show_timer(attached.timer)
    if any(each.mismatch for each in attached.fitness.placements):
        show_placements(attached.fitness)


def _show(report: Attached) -> None:
    window = report.window
    if window is not None:
        for napi in window.napis[:MOST_NAPIS]:
            for line in napi_lines(napi, window.seconds):
                echo(line)
        if len(window.napis) > MOST_NAPIS:
            echo(f"and {len(window.napis) - MOST_NAPIS} NAPI instances more; `napctl watch` shows them")
        for lack in window.lacks:
            paragraph(f"not known: {lack}")
    for line in now_lines(report):
        paragraph(line, rest="  ")
    for each in (*report.warnings, *report.fitness.notes):
        paragraph(f"warning: {each}" if each in report.warnings else f"note: {each}", rest="  ")
    paragraph(verdict_line(report.transaction.name, report, report.transaction.changes), rest="  ")
    if report.taken_back:
        some = f"{', '.join(report.taken_back[:MOST_NAPIS])}{' …' if len(report.taken_back) > MOST_NAPIS else ''}"
        paragraph(f"detached at once: {some}; `--force` keeps it, to measure how long packets wait", rest="  ")
    if len(report.taken_back) < len(report.transaction.changes):
        echo(f"undo with: napctl detach {report.transaction.pid}")
