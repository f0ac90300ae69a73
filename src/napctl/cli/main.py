"""The entry point: commands found by name, errors as one line, exit statuses as promised."""

import errno
import importlib
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

from napctl import __version__
from napctl.cli.failures import OutputFailed, exit_status, in_words, silence, tell_output_apart
from napctl.cli.loading import loading
from napctl.cli.terminal import echo
from napctl.model.errors import NapctlError

COMMANDS = {
    "status": "how the machine's devices take packets, and who polls them",
    "watch": "live: packets per poll, who polls, interrupts, drops",
    "doctor": "what wastes CPU time, delays or loses packets, and what to do",
    "attach": "give a running server IRQ suspension",
    "attached": "what is attached, and what it does right now",
    "run": "start a server with suspension, and follow it",
    "detach": "take it back: restore every former value",
    "plan": "propose coalescing and deferral for a goal, with reasons",
    "apply": "make a plan true, as one transaction with a way back",
    "confirm": "keep what was applied with --confirm-within",
    "rollback": "undo an applied plan",
    "history": "what was changed, when, and what became of it",
    "export": "a plan for ethtool, systemd, NetworkManager or Ansible",
    "compare": "an experiment: treatments, loads, rounds, and a verdict",
    "verify": "does the NIC obey its settings on the wire?",
    "energy": "what a command costs in joules, where the machine can tell",
    "report": "what a run of compare found: a table and a page",
    "recover": "restore what was interrupted, or whose server has gone",
    "lab": "a test bed of network namespaces with a real server and load",
    "demo": "the same memcached with interrupts, busy polling and suspension",
    "completion": "shell completion for bash, zsh or fish",
}
"""Each command is the function of that name in the module napctl.cli.NAME."""

EPILOG = """\b
Exit status:
  0  done
  1  done, and the answer is bad
  2  bad usage or bad input
  3  this kernel, driver or process cannot do it
  4  not permitted: a capability is missing
  5  somebody else changed a setting, or took the device away, meanwhile
  6  failed; what had been changed was put back
  128 + N  ended by signal N
"""


class Commands(click.Group):
    """Imports a command only when it is asked for: `status` must not wait for what `demo` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which a new user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        with loading():
            command: click.Command = getattr(importlib.import_module(f"napctl.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, without importing every command for its first sentence."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="napctl")
def cli() -> None:
    """See how Linux takes its packets, change that safely, give any running server IRQ suspension, and measure it.

    \b
    Examples:
      napctl status eth0
      napctl watch eth0 --seconds 10
      napctl doctor eth0
      napctl plan eth0 --goal balanced --output eth0.toml
      napctl apply eth0.toml --confirm-within 60s
      napctl attach memcached
      napctl detach memcached
    """


def run() -> NoReturn:
    """Run the command line and exit."""
    try:
        _run()
    finally:  # all is done: while the interpreter ends, a signal must not raise any more
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)


def _run() -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)  # an ssh connection that breaks must not leave anything half done
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    tell_output_apart()
    try:
        status = _invoke()
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except NapctlError as error:
        _fail(str(error), error.exit_status)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "napctl"
        words = " ".join(error.format_message().split()).removesuffix(".")
        _fail(f"{words} (see {where} --help)", 2)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130)
    except OutputFailed as error:
        broken = error.errno == errno.EPIPE
        if not broken:
            _say(f"output: {error.strerror}")
        silence()
        sys.exit(128 + signal.SIGPIPE if broken else NapctlError.exit_status)
    except OSError as error:
        _fail(in_words(error), exit_status(error))
    sys.exit(status if isinstance(status, int) else 0)


def _invoke() -> Any:
    """What cli.main() does, which however turns a closed pipe into status 1."""
    if "_NAPCTL_COMPLETE" in os.environ:
        from napctl.cli.completion import complete  # noqa: PLC0415 - only while completing

        complete()
    with cli.make_context("napctl", sys.argv[1:]) as context:
        status = cli.invoke(context)
    sys.stdout.flush()
    return status


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _fail(message: str, status: int) -> NoReturn:
    _say(message)
    sys.exit(status)


def _say(message: str) -> None:
    try:
        echo(f"napctl: {message}", err=True)
    except OutputFailed:  # nobody hears it: the exit status says it
        silence()
