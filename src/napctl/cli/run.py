"""napctl run: start a server with IRQ suspension from its first connection on."""

import signal
import subprocess
from types import FrameType
from typing import Any

import click

from napctl.attach.attach_options import options_of
from napctl.attach.target import Target
from napctl.cli.attach_options import attach_options
from napctl.cli.follow import stay_attached
from napctl.model.errors import BadInput


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="\b\nExamples:\n  napctl run -- memcached -u nobody -t 1\n"
    "  napctl run --steer -- nginx -g 'daemon off;'\n  napctl run --defer-us 50 -- ./service --port 8080",
)
@attach_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...], **values: Any) -> int:
    """Start a server (COMMAND), and keep it attached until it ends.

    It and all that it starts are attached as soon as connections come. What napctl says goes to stderr. Ctrl-C, SIGTERM
    and SIGHUP reach COMMAND; its exit status is napctl's.
    """
    options = options_of(values, stays=True)
    child = _started(command)
    try:
        target = Target(text=command[0], kind="pid", value=str(child.pid))
        stay_attached(target, options, child=child, to_stderr=True)
    finally:
        if child.poll() is None:  # whatever went wrong here
            child.terminate()
        status = child.wait()
    return 128 - status if status < 0 else status


def _started(command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    """Start it. It decides when to end: Ctrl-C reaches it from the terminal, the other signals by us.

    Also those that come while it is being started: or it would be left behind.
    """
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # which the command inherits
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        raise BadInput(f"{command[0]}: {error.strerror}") from None
    for late in early:
        child.send_signal(late)
    return child
