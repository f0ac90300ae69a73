"""napctl attach: give a running server IRQ suspension, and say what really happens then."""

import time

import click

from napctl.attach.attach import attach as attach_process
from napctl.attach.attach import detach
from napctl.attach.report import Attached, attached, several_queues
from napctl.attach.target import find_process
from napctl.change.journal import Journal
from napctl.change.transaction import undisturbed
from napctl.cli.loading import load_tables
from napctl.cli.options import Duration, json_option, offered, process_names
from napctl.cli.restored import recover_leavings
from napctl.cli.settingtext import changed
from napctl.cli.table import note, paragraph, percent, print_table
from napctl.cli.windowtext import napi_lines
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.processes import Process
from napctl.model.change import NapiChange, Transaction
from napctl.model.errors import BadInput, NapctlError
from napctl.model.suspension import Suspension
from napctl.model.units import duration_text
from napctl.model.value import to_json
from napctl.model.window import Window
from napctl.observe.window import run_window

DEFAULT = Suspension()
S32_MAX = 2**31 - 1
"""What the kernel takes at most: netdev_nl_napi_set_config() in net/core/netdev-genl.c, ep_eventpoll_bp_ioctl()."""


@click.command(
    epilog="\b\nExamples:\n  napctl attach memcached\n  napctl attach 1234 --gro-flush-timeout 50us\n"
    "  napctl attach 1234 --window 0s --json"
)
@click.argument("target", shell_complete=offered(process_names))
@click.option("--defer-hard-irqs", type=click.IntRange(1, S32_MAX), default=DEFAULT.defer_hard_irqs, show_default=True,
              help="Empty polls before the interrupt is unmasked.")  # fmt: skip
@click.option("--gro-flush-timeout", type=Duration(least_ns=1), default="200us", show_default=True,
              help="Timer of the deferred polls; short ones take polls away from the server.")  # fmt: skip
@click.option("--irq-suspend-timeout", type=Duration(least_ns=1), default="20ms", show_default=True,
              help="Longest time that interrupts stay suspended without the server coming back.")  # fmt: skip
@click.option("--busy-poll-usecs", type=click.IntRange(0, S32_MAX), default=DEFAULT.busy_poll_usecs, show_default=True,
              help="Longest spin of an epoll_wait; 0: one poll. A spinning task cannot be killed.")  # fmt: skip
@click.option("--busy-poll-budget", type=click.IntRange(1, 65535), default=DEFAULT.busy_poll_budget, show_default=True,
              help="Packets that one busy poll may take.")  # fmt: skip
@click.option("--window", "window_ns", type=Duration(most_ns=3600 * 10**9), default="1s", show_default=True,
              help="How long to measure afterwards; 0: not at all.")  # fmt: skip
@json_option("One JSON object")
def attach(
    target: str,
    defer_hard_irqs: int,
    gro_flush_timeout: int,
    irq_suspend_timeout: int,
    busy_poll_usecs: int,
    busy_poll_budget: int,
    window_ns: int,
    as_json: bool,
) -> int:
    """Attach IRQ suspension to the running process TARGET (a pid or a name), without stopping or changing it.

    Sets deferral and suspension on exactly those NAPI instances that feed the sockets of its epoll instances, and
    prefer_busy_poll on exactly these epoll instances. Everything is journalled before it is changed; `napctl detach`
    brings every former value back. Then a window is measured: exit status 1 if the server does not poll by then.
    Interrupted before that is over, it detaches again.
    """
    process = find_process(target)
    wanted = Suspension(
        defer_hard_irqs=defer_hard_irqs,
        gro_flush_timeout_ns=gro_flush_timeout,
        irq_suspend_timeout_ns=irq_suspend_timeout,
        busy_poll_usecs=busy_poll_usecs,
        busy_poll_budget=busy_poll_budget,
    )
    if wanted.irq_suspend_timeout_ns <= wanted.gro_flush_timeout_ns:
        raise BadInput("--irq-suspend-timeout must be longer than --gro-flush-timeout, or nothing is ever suspended")
    if not as_json:
        load_tables()
    made: list[Transaction] = []
    try:
        report = _attach(process, wanted, window_ns, made, as_json=as_json)
    except (KeyboardInterrupt, SystemExit):
        _take_back(made)
        raise
    if as_json:
        click.echo(to_json(report))
    else:
        _show(report)
    return 1 if report.verdict == "not active" else 0


def _attach(
    process: Process, wanted: Suspension, window_ns: int, made: list[Transaction], *, as_json: bool
) -> Attached:
    """Attach, tell, measure. `made` receives the transaction as soon as it is in force."""
    start = time.monotonic()
    with undisturbed(), Journal() as journal:  # no signal between the change and `made`
        recovered = recover_leavings(journal, as_json=as_json)
        transaction = attach_process(journal, process, wanted)
        made.append(transaction)
    seconds = time.monotonic() - start
    warnings = several_queues(transaction)
    if not as_json:
        _show_made(transaction, seconds)
    window = None
    try:
        window = _measure(transaction, window_ns)
    except (NapctlError, OSError) as error:
        warnings.append(f"attached, but not measured: {error}")
    return attached(transaction, window, seconds, warnings, recovered)


def _take_back(made: list[Transaction]) -> None:
    """An attach that is interrupted while it measures leaves nothing changed, as at any other moment."""
    for transaction in made:
        with undisturbed(), Journal() as journal:
            detach(journal, [each for each in journal.live() if each.number == transaction.number])
        note(f"{transaction.name} ({transaction.pid}): detached again")


def _measure(transaction: Transaction, window_ns: int) -> Window | None:
    if not window_ns:
        return None
    napi = next(change for change in transaction.changes if isinstance(change, NapiChange))
    netns = NetworkNamespace.find(napi.netns)
    if netns is None:
        return None
    if window_ns > 2e9:
        note(f"measuring for {duration_text(window_ns)}")
    with netns:
        return run_window(netns, window_ns / 1e9, [napi.device])


def _show_made(transaction: Transaction, seconds: float) -> None:
    click.echo(f"attached {transaction.name} ({transaction.pid}) in {seconds * 1000:.0f} ms")
    rows = [row for change in transaction.changes for row in changed(change)]
    print_table(("where", "setting", "was", "is now"), rows, indent=2, left=2)


def _show(report: Attached) -> None:
    window, name = report.window, report.transaction.name
    if window is not None:
        for napi in window.napis:
            for line in napi_lines(napi, window.seconds):
                click.echo(line)
        for lack in window.lacks:
            paragraph(f"not known: {lack}")
    for warning in report.warnings:
        paragraph(f"warning: {warning}")
    polls, packets = percent(report.server_poll_share), percent(report.server_packet_share)
    own = f"{name} makes {polls} of the polls, taking {packets} of packets"
    click.echo(
        {
            "active": f"active: {own}",
            "not active": f"NOT active: {own}",
            "too little traffic to tell": "too little traffic in this window to tell whether it is active",
            "not measured": "not measured whether it is active; `napctl watch` shows it",
        }[report.verdict]
    )
    click.echo(f"undo with: napctl detach {report.transaction.pid}")
