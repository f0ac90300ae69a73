"""napctl demo: the same unmodified memcached under the same load, taking its packets in different ways."""

import secrets
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
from msgspec.structs import replace

from napctl import __version__
from napctl.change.guard import watched
from napctl.cli.options import Seconds, json_option
from napctl.cli.progress import progress_line
from napctl.cli.report import present
from napctl.cli.terminal import note
from napctl.measure.baseline import idle_baseline
from napctl.measure.bench import lab_bench, lab_rates
from napctl.measure.compare import REST, run
from napctl.measure.labload import WARMUP_SECONDS
from napctl.measure.rundir import RunDirectory
from napctl.measure.treatments import PRESETS, parse_treatment
from napctl.model.experiment import RunConfig

SETTLE_SECONDS = 0.05
REPEATS = 8


@click.command(
    epilog="\b\nExamples:\n  napctl demo\n  napctl demo --rounds 12 --seconds 2\n  napctl demo --output demo-run"
)
@click.option("--rounds", type=click.IntRange(2), default=6, show_default=True, help="How often each cell is measured.")
@click.option("--seconds", type=Seconds(0.5, 60), default=0.8, show_default=True, help="Length of a cell.")
@click.option("--seed", type=int, help="Seed of the order of cells (default: a new one, printed).")
@click.option("--output", type=click.Path(file_okay=False), help="Directory of the run (default: a new one in /tmp).")
@json_option("One JSON object, the summary")
def demo(rounds: int, seconds: float, seed: int | None, output: str | None, as_json: bool) -> None:
    """Compare interrupts, deferral, full busy polling and IRQ suspension on this machine.

    Builds a lab of two network namespaces, starts an unmodified memcached in one and an open-loop load in the other,
    and compares four ways of taking packets as `napctl compare` does: at rest, at a light and at a heavy load.
    Suspension is attached to the running server from outside. Nothing outside the lab is changed, and nothing of it
    stays but the report.
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
        seconds=seconds,
        warmup_seconds=WARMUP_SECONDS,
        settle_seconds=SETTLE_SECONDS,
        seed=secrets.randbelow(10**6) if seed is None else seed,
    )
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="napctl-demo-state-")))
        guard = stack.enter_context(watched(None, state))
        note("building the lab")
        bench = stack.enter_context(lab_bench(state, guard))
        light, heavy, _ = lab_rates(bench, note)
        config = replace(config, rates=(REST, light, heavy))
        directory.create(config, bench.machine)
        directory.write_baseline(idle_baseline(config, bench.gauge, note))
        treatments = [parse_treatment(name, {}, {}) for name in config.treatments]
        tell = stack.enter_context(progress_line(seconds + WARMUP_SECONDS + 0.4))
        run(config, treatments, directory, bench.place, bench.load, bench.gauge, tell, repeats=REPEATS)
    present(directory, as_json=as_json)
