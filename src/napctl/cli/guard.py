"""napctl guard: a process of its own that restores what a killed service has left."""

import signal
from contextlib import suppress

import click

from napctl.change.journal import state_directory
from napctl.change.keeper_watch import watch_keepers
from napctl.cli.output_queue import missing_text, never_waiting
from napctl.cli.stop_signals import Stop
from napctl.cli.terminal import echo
from napctl.kernel.service_manager import notify


@click.command(epilog="\b\nExamples:\n  napctl guard          # napctl-guard.service runs it")
def guard() -> None:
    """Watch the service, and put everything back if it is killed and does not come back in time.

    How long that is, the policy says (guard-wait, 60 s by default). It follows each new daemon, and ends at SIGTERM. A
    daemon that finds no guard starts one of its own, which a process of the same control group cannot outlive.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nothing to read anew
    stop = Stop()

    def is_asked() -> bool:
        with suppress(OSError):  # nobody reads what it says: no reason to end
            queue.catch_up()
        return stop.asked

    with never_waiting(lambda lines: _say(missing_text(lines))) as queue:
        wake = [stop.fileno(), queue.fileno()]
        watch_keepers(state_directory(), is_asked, _say, wake, ready=lambda: notify("READY=1"))


def _say(line: str) -> None:
    with suppress(OSError):
        echo(line)
