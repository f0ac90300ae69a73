"""napctl demo: the same unmodified memcached under the same load, taking its packets in different ways."""

import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from napctl.change.journal import Journal
from napctl.cli.options import Seconds, json_option
from napctl.cli.table import ABSENT, console, note
from napctl.lab.bed import Lab
from napctl.lab.servers import memcached
from napctl.measure.experiment import KEYS_PER_GET, VALUE_BYTES, WARMUP_SECONDS, Bench, LoadLevel, experiment
from napctl.measure.plainwords import sentences
from napctl.measure.summary import Cell, Row, summarise
from napctl.measure.treatment import BUSY_POLLING, DEFERRAL, INTERRUPTS, SUSPENSION
from napctl.model.machine import SCHEMA
from napctl.model.value import Value, to_json
from napctl.observe.window import Observer

TREATMENTS = [INTERRUPTS, DEFERRAL, BUSY_POLLING, SUSPENSION]
LIGHT, HEAVY = 0.25, 0.7
"""The two load levels, as shares of the rate that saturates the server with interrupts."""
CALIBRATION_SECONDS = 1.5

COLUMNS = {
    "requests_per_second": ("req/s", 1),
    "p50_us": ("p50 µs", 1),
    "p99_us": ("p99 µs", 1),
    "server_cpu_share": ("CPU %", 100),
    "cpu_us_per_request": ("µs/req", 1),
    "net_rx_softirqs_per_second": ("NET_RX/s", 1),
    "server_poll_share": ("polls %", 100),
}
"""Metric: heading, and factor from the metric's unit to the heading's."""
LEGEND = """\
Each figure is the median over rounds; below it the least and the most.
  CPU %     CPU time of memcached and its NIC's NAPI thread, from the scheduler
  µs/req    that time per request
  NET_RX/s  network softirqs of all CPUs. The lab has few in every case: its NIC
            is a veth, polled by a NAPI thread on the server's CPU. That stands
            for "interrupts" here, and waits its turn where a softirq would not
  polls %   share of the NIC's polls that memcached made itself"""


class Report(Value, frozen=True, kw_only=True):
    """What `demo --json` prints."""

    schema: int = SCHEMA
    seed: int
    saturating_per_second: dict[str, float]
    """By treatment: interrupts and suspension."""
    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]
    sentences: tuple[str, ...]


@click.command(
    epilog="\b\nExamples:\n  napctl demo\n  napctl demo --rounds 8 --seconds 4\n  napctl demo --json > demo.json"
)
@click.option("--rounds", type=click.IntRange(2), default=4, show_default=True, help="How often each cell is measured.")
@click.option("--seconds", type=Seconds(0.5, 60), default=1.5, show_default=True, help="Length of a cell.")
@click.option("--seed", type=int, help="Seed of the order of cells (default: a new one, printed).")
@json_option("One JSON object, with every cell")
def demo(rounds: int, seconds: float, seed: int | None, as_json: bool) -> None:
    """Compare interrupts, deferral, full busy polling and IRQ suspension on this machine.

    Builds a lab of two network namespaces, starts an unmodified memcached in one and an open-loop load in the other,
    and measures the four ways of taking packets in interleaved rounds: at rest and at two loads. Suspension is attached
    to the running server from outside. Nothing outside the lab is changed, and nothing of it stays.
    """
    seed = secrets.randbelow(10**6) if seed is None else seed
    with ExitStack() as stack:
        state = stack.enter_context(tempfile.TemporaryDirectory(prefix="napctl-demo-"))
        progress = stack.enter_context(_progress(rounds * len(TREATMENTS) * 3 + 3, seconds))
        progress("building the lab")
        lab = stack.enter_context(Lab.build())
        server = stack.enter_context(memcached(lab, keys=KEYS_PER_GET, value_bytes=VALUE_BYTES))
        journal = stack.enter_context(Journal(Path(state)))
        observer = stack.enter_context(Observer(lab.server.namespace, [lab.server.device]))
        bench = Bench(lab, server, journal, observer)
        saturating = {}
        for treatment in (SUSPENSION, INTERRUPTS):
            progress(f"finding the saturating load with {treatment.name}")
            saturating[treatment.name] = bench.saturating_rate(treatment, CALIBRATION_SECONDS)
        base = saturating[INTERRUPTS.name]
        levels = [
            LoadLevel(name="rest", rate_per_second=0),
            LoadLevel(name="light", rate_per_second=_rounded(LIGHT * base)),
            LoadLevel(name="heavy", rate_per_second=_rounded(HEAVY * base)),
        ]
        cells = experiment(bench, TREATMENTS, levels, rounds=rounds, seconds=seconds, seed=seed, progress=progress)
    rows = _sorted(summarise(cells), levels)
    report = Report(
        seed=seed,
        saturating_per_second=saturating,
        cells=tuple(cells),
        rows=tuple(rows),
        sentences=tuple(sentences(rows, heavy="heavy", light="light", rest="rest")),
    )
    if as_json:
        click.echo(to_json(report))
    else:
        _show(report, levels, rounds, seconds)


def _show(report: Report, levels: list[LoadLevel], rounds: int, seconds: float) -> None:
    from rich.table import Table  # noqa: PLC0415 - needed only to print

    saturated = " and ".join(f"{rate:,.0f} with {name}" for name, rate in report.saturating_per_second.items())
    click.echo(
        f"memcached, 1 thread, 1 queue, multi-gets of {KEYS_PER_GET} keys\n"
        f"saturated, requests/s: {saturated}\n"
        f"{rounds} interleaved rounds of {seconds:g} s each, order from seed {report.seed}\n"
    )
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading, _ in COLUMNS.values():
        table.add_column(heading, justify="right", header_style="bold", no_wrap=True)
    for level in levels:
        table.add_row(f"[bold]{level.name}[/]", *[""] * len(COLUMNS))
        for row in report.rows:
            if row.load == level.name:
                figures = [(row.metrics.get(metric), factor) for metric, (_, factor) in COLUMNS.items()]
                table.add_row(row.treatment, *(short(each.median * by) if each else ABSENT for each, by in figures))
                ranges = (f"{short(each.least * by)}-{short(each.most * by)}" if each else "" for each, by in figures)
                table.add_row("", *ranges, style="dim")
    console().print(table)
    click.echo(f"\n{LEGEND}")
    doubtful = sum(cell.doubtful for cell in report.cells)
    if doubtful:
        where = f"{doubtful} of {len(report.cells)} cells, even repeated ones"
        click.echo(f"\nDoubtful: in {where}, the load generator was late, as")
        click.echo("when other work runs on this machine: latencies there are partly its own.")
    for sentence in report.sentences:
        console().print(f"\n{sentence}")


def short(value: float) -> str:
    """At most four characters: 0, 0.41, 7.9, 162, 5.8k, 120k, 1.2M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.0f}{unit}" if scaled >= 9.95 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}" if value >= 9.95 or value == 0 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def _sorted(rows: list[Row], levels: list[LoadLevel]) -> list[Row]:
    loads = [level.name for level in levels]
    treatments = [treatment.name for treatment in TREATMENTS]
    return sorted(rows, key=lambda row: (loads.index(row.load), treatments.index(row.treatment)))


def _rounded(rate: float) -> float:
    """To 1,000 requests/s: a figure that a person can repeat."""
    return max(1000.0, round(rate, -3))


@contextmanager
def _progress(steps: int, seconds: float) -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is running and how long it will still take."""
    done = 0
    interactive = sys.stderr.isatty()

    def tell(what: str) -> None:
        nonlocal done
        left = (steps - done) * (seconds + WARMUP_SECONDS + 0.1)
        line = f"[{done:>2} of {steps}, about {left:.0f} s left] {what}"
        if interactive:
            click.echo(f"\r\033[K{line}", err=True, nl=False)
        else:
            note(line)
        done += 1

    start = time.monotonic()
    yield tell
    if interactive:
        click.echo(f"\r\033[Kmeasured for {time.monotonic() - start:.0f} s", err=True)
