"""napctl demo: the same unmodified memcached under the same load, taking its packets in different ways."""

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import click
from msgspec.structs import replace

from napctl import __version__
from napctl.change.guard import watched
from napctl.cli.options import Seconds, json_option, verbose_option
from napctl.cli.report import present
from napctl.cli.terminal import note
from napctl.cli.text.progress import progress_line
from napctl.experiment.environment import lab_environment, lab_rates
from napctl.experiment.idle_baseline import idle_baseline
from napctl.experiment.run_directory import RunDirectory
from napctl.experiment.schedule import run
from napctl.experiment.treatments import PRESETS, parse_treatment
from napctl.load.base import REST
from napctl.model.errors import NapctlError
from napctl.model.experiment import RunConfig
from napctl.report.labels import naming

SETTLE_SECONDS = 0.05
WARMUP_SECONDS = 0.2
REST_ROUNDS = 2
"""At rest the figures are shown without verdict: there is nothing to wait for, and what polls is seen at once."""
REPEATS = 8


@click.command(
    epilog="\b\nExamples:\n  napctl demo\n  napctl demo --rounds 12 --seconds 2\n  napctl demo --output demo-run"
)
@click.option("--rounds", type=click.IntRange(1), default=8, show_default=True, help="How often each cell is measured.")
@click.option("--seconds", type=Seconds(0.2, 60), default=0.5, show_default=True, help="Length of a cell.")
@click.option("--seed", type=int, help="Seed of the order of cells (default: a new one, printed).")
@click.option("--output", type=click.Path(file_okay=False), help="Directory of the run (default: a new one in /tmp).")
@verbose_option
@json_option("One JSON object, the summary")
def demo(rounds: int, seconds: float, seed: int | None, output: str | None, verbose: bool, as_json: bool) -> None:
    """Compare interrupts, IRQ suspension, deferral and busy polling on this machine.

    Builds a lab of two network namespaces, starts an unmodified memcached in one and a load in the other, and compares
    five ways of taking packets as `napctl compare` does: at rest, at a light and a heavy load, and with as many
    requests as possible. Suspension is attached to the running server from outside. Nothing outside the lab is changed,
    and nothing of it stays but the report.
    """
    directory = RunDirectory(output or tempfile.mkdtemp(prefix="napctl-demo-"))
    config = RunConfig(
        napctl=__version__,
        name="demo",
        made_unix_ns=time.time_ns(),
        treatments=PRESETS["demo"],
        target="memcached of the lab",
        source="lab",
        rounds=rounds,
        rest_rounds=REST_ROUNDS,
        seconds=seconds,
        warmup_seconds=WARMUP_SECONDS,
        settle_seconds=SETTLE_SECONDS,
        seed=secrets.randbelow(10**6) if seed is None else seed,
    )
    with ExitStack() as owner:
        with ExitStack() as stack:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="napctl-demo-state-")))
            guard = stack.enter_context(watched(None, state))
            note("building the lab")
            environment = stack.enter_context(lab_environment(state, guard, warmup_seconds=WARMUP_SECONDS))
            light, heavy, most = lab_rates(environment, note)
            config = replace(config, rates=(REST, light, heavy, most))
            directory.create(config, environment.machine)
            owner.enter_context(_handed_over(directory))
            directory.write_baseline(idle_baseline(config, environment.meter, note))
            treatments = [parse_treatment(name, {}, {}) for name in config.treatments]
            tell = stack.enter_context(progress_line(seconds + WARMUP_SECONDS + 0.4, naming(config)))
            run(
                config, treatments, directory, environment.place, environment.load, environment.meter, tell,
                repeats=REPEATS,
            )  # fmt: skip
        present(directory, verbose=verbose, as_json=as_json)


@contextmanager
def _handed_over(directory: RunDirectory) -> Iterator[None]:
    """What we have made belongs to who typed the command, however that ends."""
    try:
        yield
    except BaseException:
        with suppress(NapctlError, OSError):  # what went wrong first is told
            _hand_over(directory)
        raise
    _hand_over(directory)


def _hand_over(directory: RunDirectory) -> None:
    if caller := _caller():
        directory.hand_over(*caller)


def _caller() -> tuple[int, int] | None:
    """User and group of who typed it, where sudo made root of them: the page is theirs to open."""
    if os.geteuid():
        return None
    uid, gid = (os.environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID"))
    return (int(uid), int(gid)) if uid.isdecimal() and gid.isdecimal() and int(uid) else None
