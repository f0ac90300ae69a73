"""napctl guard: a process of its own that restores what a killed service has left."""

import signal

import click

from napctl.change.journal import state_directory
from napctl.change.keeper_watch import watch_keepers
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
    watch_keepers(state_directory(), stop.is_asked, echo, [stop.fileno()], ready=lambda: notify("READY=1"))
