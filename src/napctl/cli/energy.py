"""napctl energy: what a command costs in joules, where the machine can tell."""

import os
import signal
import subprocess
from contextlib import suppress
from types import FrameType
from typing import Self

import click

from napctl.cli.options import Seconds, json_option
from napctl.cli.terminal import echo_json, note
from napctl.cli.text.joules import lines
from napctl.kernel.energy.sources import Roots
from napctl.model.energy import Energy, EnergyEstimate, above_idle, estimate
from napctl.model.errors import BadInput
from napctl.model.machine import SCHEMA
from napctl.model.value import Value
from napctl.observe.energy import EnergyMeter

ROOTS = Roots()


class EnergyReport(Value, frozen=True, kw_only=True):
    """What `napctl energy --json` prints.

    The energy is the whole machine's while the command ran, not the command's alone.
    """

    schema: int = SCHEMA
    command: tuple[str, ...]
    exit_status: int
    """Of the command; 128 + N if signal N ended it."""
    cpu_user_seconds: float
    cpu_system_seconds: float
    """CPU time of the command and of all its children that it has waited for."""
    energy: Energy
    idle: Energy | None
    """Measured before the command; null: not asked for, or nothing can be measured."""
    above_idle_joules: dict[str, float]
    """By kind: energy beyond what the idle machine would have used in the same time; what is not known is missing."""
    estimate: EnergyEstimate | None
    """Only if the user gave the watts: not measured."""


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="\b\nExamples:\n  napctl energy -- make -j8\n  napctl energy --idle 10 --json -- wrk -d 30 http://[::1]/\n"
    "  napctl energy --idle-watts 60 --busy-watts 180 -- ./bench",
)
@click.option("--idle", type=Seconds(min=0.5, max=3600), metavar="SECONDS",
              help="First measure for so long what the machine uses without COMMAND.")  # fmt: skip
@click.option("--idle-watts", type=Seconds(min=0, max=100_000), metavar="W",
              help="Power of the idle machine, for an estimate.")  # fmt: skip
@click.option("--busy-watts", type=Seconds(min=0, max=100_000), metavar="W",
              help="Power with all CPUs busy, for an estimate.")  # fmt: skip
@json_option("One JSON object, the last line of the output")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def energy(
    command: tuple[str, ...], idle: float | None, idle_watts: float | None, busy_watts: float | None, as_json: bool
) -> int:
    """Run COMMAND, and say how many joules the machine used meanwhile.

    From RAPL, hwmon or the BMC: joules and mean watts of the whole machine. Where nothing can be measured it says so,
    and why. What napctl says goes to stderr (JSON: to stdout). Ctrl-C, SIGTERM and SIGHUP reach COMMAND; its exit
    status is napctl's.
    """
    if (idle_watts is None) != (busy_watts is None):
        raise BadInput("an estimate needs both --idle-watts and --busy-watts")
    if idle_watts is not None and busy_watts is not None and busy_watts < idle_watts:
        raise BadInput("--busy-watts is less than --idle-watts")
    with EnergyMeter(ROOTS) as meter:
        baseline = meter.idle(idle) if idle is not None and not meter.why else None
        beginning = meter.begin()
        status, user, system = _run(command)
        used = meter.since(beginning)
    report = EnergyReport(
        command=command,
        exit_status=status,
        cpu_user_seconds=user,
        cpu_system_seconds=system,
        energy=used,
        idle=baseline,
        above_idle_joules=above_idle(used, baseline) if baseline else {},
        estimate=estimate(used, idle_watts, busy_watts) if idle_watts is not None and busy_watts is not None else None,
    )
    if as_json:
        echo_json(report)
    else:
        run = f"{user + system:.2f} s CPU time ({user:.2f} s user, {system:.2f} s system), exit status {status}"
        estimated = idle_watts is not None
        for line in lines(used, baseline, report.above_idle_joules, report.estimate, estimated=estimated, run=run):
            note(line)
    return status


def _run(command: tuple[str, ...]) -> tuple[int, float, float]:
    """Exit status as the shell has it, and CPU time, s: user and system. Raises BadInput if it cannot be started."""
    with _Handed() as signals:
        try:
            child = subprocess.Popen(command)
        except OSError as error:
            raise BadInput(f"{command[0]}: {error.strerror}") from None
        signals.to(child.pid)
        _, waited, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(waited)
    status = 128 - child.returncode if child.returncode < 0 else child.returncode
    return status, usage.ru_utime, usage.ru_stime


class _Handed:
    """Signals go to the command, which decides when to end: Ctrl-C reaches it from the terminal, the others by us."""

    def __init__(self) -> None:
        self._pidfd: int | None = None
        self._pending: list[int] = []
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def __enter__(self) -> Self:
        for number, before in self._before.items():
            if before is not signal.SIG_IGN:
                signal.signal(number, self._hand_on)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._pidfd is not None:
            os.close(self._pidfd)

    def to(self, pid: int) -> None:
        """The command has started. A pidfd still means it when its pid is somebody else's."""
        self._pidfd = os.pidfd_open(pid)
        for number in self._pending:
            self._hand_on(number, None)

    def _hand_on(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            return
        if self._pidfd is None:
            self._pending.append(number)
            return
        with suppress(ProcessLookupError):  # it has ended
            signal.pidfd_send_signal(self._pidfd, number)
