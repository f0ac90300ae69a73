"""napctl attach: give a running server IRQ suspension, and say what really happens then."""

from typing import Any

import click

from napctl.attach.attach import detach, planned, refuse_second
from napctl.attach.examine import examine
from napctl.attach.measure import measured
from napctl.attach.operate import Made, Wish, attach_target, look, warnings_of
from napctl.attach.report import Attached, Now, only, several_queues
from napctl.attach.takeback import TakenBack, take_back
from napctl.attach.target import Target, complete, parse, resolve
from napctl.change.journal import Journal
from napctl.change.recovery import orphaned
from napctl.change.transaction import undisturbed
from napctl.cli.fitnesstext import show_changes, show_fitness, show_placements, show_timer
from napctl.cli.loading import load_tables
from napctl.cli.nowtext import now_lines, verdict_line
from napctl.cli.options import Duration, json_option
from napctl.cli.restored import name_left, recover_leavings
from napctl.cli.settingtext import changed, grouped
from napctl.cli.staying import stay_attached
from napctl.cli.table import paragraph, print_table
from napctl.cli.terminal import echo, echo_json, note
from napctl.cli.windowtext import napi_lines
from napctl.cli.wish import wish_of, wish_options
from napctl.kernel.processes import Process
from napctl.model.change import Restored, Transaction
from napctl.model.errors import NapctlError
from napctl.model.units import duration_text
from napctl.model.window import Window

MOST_NAPIS = 8
"""Of which each has its own picture."""


@click.command(
    epilog="\b\nExamples:\n  napctl attach memcached\n  napctl attach nginx --steer --stay\n"
    "  napctl attach nginx.service --dry-run\n  napctl attach :6379 --defer-us 50\n"
    "  napctl attach 1234 --window 0s --json"
)
@click.argument("target", shell_complete=lambda _context, _parameter, word: complete(word))
@click.option("--dry-run", is_flag=True, help="Change nothing: say what would be done, and why.")
@click.option("--stay", is_flag=True, help="Follow the target through reloads, restarts and link resets, until Ctrl-C.")
@wish_options
@click.option("--window", "window_ns", type=Duration(most_ns=3600 * 10**9), default="1s", show_default=True,
              help="How long to measure afterwards; 0: not at all.")  # fmt: skip
@json_option("One JSON object; with --stay one for each event")
def attach(target: str, dry_run: bool, stay: bool, window_ns: int, as_json: bool, **values: Any) -> int:
    """Attach IRQ suspension to a running TARGET, without stopping or changing it.

    TARGET is a pid, a name, a systemd unit, a control group (/path), a container (its id), or a port (:8080); its
    workers and children are part of it. Write kind:value (name:, unit:, cgroup:, container:, port:) where that is not
    clear.

    Each epoll instance is judged. Those that fit get prefer_busy_poll, and exactly those NAPI instances that feed them
    deferral and suspension. Everything is journalled before it is changed; `napctl detach` brings every former value
    back. Then a window is measured: exit status 1 if the server does not poll by then, or starves a queue, which is
    taken back at once (unless --force). Interrupted before that is over, it detaches again.
    """
    meant, wish = parse(target), wish_of(values)
    if dry_run and stay:
        raise click.UsageError("--dry-run changes nothing, so there is nothing to stay for")
    if dry_run:
        return _explain(meant, wish, as_json=as_json)
    if stay:
        _refuse_second(resolve(meant))  # what cannot be is refused; a target that comes back later is waited for
        return stay_attached(meant, wish, as_json=as_json)
    found = resolve(meant)
    if not as_json:
        load_tables()
    made: list[Transaction] = []
    try:
        report = _attach(meant.text, found, wish, window_ns, made, as_json=as_json)
    except (KeyboardInterrupt, SystemExit):
        _detach_again(made)
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


def _explain(meant: Target, wish: Wish, *, as_json: bool) -> int:
    """Everything that attaching would do. Exit status 1: nothing would be attached."""
    examined = look(meant.text, resolve(meant), wish)
    if as_json:
        echo_json(examined.fitness)
        return int(examined.choice.empty)
    show_fitness(examined.fitness)
    if examined.choice.empty:
        echo("nothing would be attached" + ("" if wish.steer or not examined.fitness.steering else "; see --steer"))
        return 1
    show_changes(planned(examined.found, examined.choice, wish.suspension))
    if wish.timer_ns is None:
        paragraph("gro-flush-timeout: attach tries several under the traffic that is there, and takes the best")
    for warning in warnings_of(examined):
        paragraph(warning)
    echo("nothing was changed")
    return 0


def _attach(
    name: str, found: tuple[Process, ...], wish: Wish, window_ns: int, made: list[Transaction], *, as_json: bool
) -> Attached:
    """Attach, tell, measure. `made` receives the transaction as soon as it is in force."""
    done, recovered = _make(name, found, wish, made, as_json=as_json)
    warnings = [*warnings_of(done.examined), *several_queues(done.transaction)]
    if not as_json:
        _show_made(done)
    now, window = Now(verdict="not measured"), None
    try:
        if window_ns:
            now, window = _measure(done.transaction, window_ns)
    except (NapctlError, OSError) as error:
        warnings.append(f"attached, but not measured: {error}")
    back = _take_back(done, now) if now.starving and not wish.force else TakenBack(rest=done.transaction)
    return Attached(
        **{field: getattr(now, field) for field in Now.__struct_fields__},
        transaction=done.transaction,
        attach_seconds=done.seconds,
        fitness=done.examined.fitness,
        timer=done.timer,
        window=window,
        warnings=tuple(warnings),
        taken_back=back.where,
        recovered=tuple(recovered),
    )


def _make(
    name: str, found: tuple[Process, ...], wish: Wish, made: list[Transaction], *, as_json: bool
) -> tuple[Made, list[Restored]]:
    with Journal() as journal:
        with undisturbed():
            recovered = recover_leavings(journal, as_json=as_json)
        done = attach_target(journal, name, found, wish, note, made=lambda one: made.append(one.transaction))
        return done, recovered


def _detach_again(made: list[Transaction]) -> None:
    """An attach that is interrupted while it measures leaves nothing changed, as at any other moment."""
    for transaction in made:
        with undisturbed(), Journal() as journal:
            detach(journal, [each for each in journal.live() if each.number == transaction.number])
        note(f"{transaction.name} ({transaction.pid}): detached again")


def _measure(transaction: Transaction, window_ns: int) -> tuple[Now, Window | None]:
    if window_ns > 2e9:
        note(f"measuring for {duration_text(window_ns)}")
    now, window = measured(transaction, window_ns / 1e9)
    return now, window and only(window, transaction)


def _take_back(made: Made, now: Now) -> TakenBack:
    """What starves, by who is fed by then: steered connections came after the examination."""
    found = examine(made.examined.found.name, made.examined.found.processes)
    with Journal() as journal:
        back = take_back(journal, made.transaction, found, now)
    name_left(list(back.restored))
    return back


def _show_made(made: Made) -> None:
    transaction = made.transaction
    echo(f"attached {transaction.name} ({transaction.pid}) in {made.seconds * 1000:.0f} ms")
    rows = grouped(row for change in transaction.changes for row in changed(change))
    print_table(("where", "setting", "was", "is now"), rows, indent=2, left=2)
    if made.timer.trials:
        show_timer(made.timer)
    if any(each.mismatch for each in made.examined.fitness.placements):
        show_placements(made.examined.fitness)


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
    paragraph(verdict_line(report.transaction.name, report), rest="  ")
    if report.taken_back:
        some = f"{', '.join(report.taken_back[:MOST_NAPIS])}{' …' if len(report.taken_back) > MOST_NAPIS else ''}"
        paragraph(f"taken back at once: {some}; `--force` keeps it, to measure how long packets wait", rest="  ")
    if len(report.taken_back) < len(report.transaction.changes):
        echo(f"undo with: napctl detach {report.transaction.pid}")
