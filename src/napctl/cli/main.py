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
from napctl.cli.os_errors import OutputFailed, exit_status, in_words, silence, tell_output_apart
from napctl.cli.safe_import import loading
from napctl.cli.terminal import echo
from napctl.model.errors import NapctlError

__all__ = ["COMMANDS", "cli", "run"]


SECTIONS = {
    "See": {
        "status": "how each device takes packets, and which processes poll it",
        "watch": "live: packets per poll, who polls, interrupts, drops",
        "census": "who takes which packets, how, and what goes past the kernel",
        "doctor": "what wastes CPU time, delays or loses packets, and what to do",
    },
    "Attach": {
        "attach": "give a running server IRQ suspension",
        "attached": "what is attached, and whether it works right now",
        "run": "start a server with IRQ suspension, and keep it so",
        "detach": "undo attach: restore every former value",
    },
    "Protect": {
        "protect": "keep a flood of packets from taking the machine",
    },
    "Settings": {
        "plan": "propose coalescing and deferral for a goal, with reasons",
        "apply": "put a plan in force, all of it or nothing",
        "confirm": "keep what was applied with --confirm-within",
        "rollback": "undo an applied plan",
        "history": "what was changed, when, and what became of it",
        "verify": "test whether the NIC does what its settings say",
        "export": "write a plan for ethtool, systemd, NetworkManager or Ansible",
        "recover": "undo what a killed napctl or an ended server left behind",
    },
    "Service": {
        "policy": "write down how packets shall be taken, and see what is not so",
        "daemon": "keep a policy true, for as long as it runs",
        "pause": "put everything back that the service has set, for a while",
        "why": "what the service has decided last, and why",
        "guard": "restore what a killed service has left, if it does not come back",
    },
    "Measure": {
        "demo": "interrupts, busy polling and suspension compared in a test bed",
        "compare": "compare settings under load, and say what differs",
        "report": "show what compare found, as a table and a page",
        "energy": "joules that the machine uses while a command runs",
        "lab": "a test bed: network namespaces, a real server, real load",
    },
    "Other": {
        "completion": "completion of commands for bash, zsh or fish",
    },
}
"""By what a user wants to do; the names in the order in which one meets them."""

COMMANDS = {name: summary for commands in SECTIONS.values() for name, summary in commands.items()}
"""Each command is the function of that name in the module napctl.cli.NAME."""

EPILOG = """\b
Exit status:
  0  done
  1  done, and the answer is bad
  2  bad usage or bad input
  3  this kernel, driver or process cannot do it
  4  not permitted: a capability is missing
  5  somebody else changed a setting or removed the device meanwhile
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
        """The lists in --help, without importing every command for its first sentence."""
        widest = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:{widest}}", summary) for name, summary in commands.items()])


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

        complete(cli)
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
