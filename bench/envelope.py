"""Each fixed way of taking packets, and the adapting one, at each load: interleaved, with a server in the lab.

    python -m bench.envelope DIRECTORY [--server memcached|nginx] [--rounds N] [--seconds S] [--learn S]
        [--budget TIME]

memcached has one thread and one queue, and is asked for one key, so that packets cost more than the server does;
nginx has four workers with a queue each, all on the server's one CPU. The run can be looked at with `napctl report`,
and drawn with scripts/draw-envelope.
"""

import argparse
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from napctl import __version__
from napctl.change.guard import watched
from napctl.cli.text.progress import progress_line
from napctl.experiment.environment import Environment, lab_environment, web_environment
from napctl.experiment.run_directory import RunDirectory
from napctl.experiment.schedule import run
from napctl.experiment.treatments import parse_treatment
from napctl.load.base import Load, Meter, Told
from napctl.model.change import Guard
from napctl.model.experiment import Cell, RunConfig
from napctl.model.units import duration_ns
from napctl.observe.server_latency import LatencyMeter
from napctl.report.labels import naming

FIXED = ("base", "suspend:20us", "suspend:50us", "suspend:200us", "defer:200us")
RATES = (5_000.0, 20_000.0, 60_000.0, 100_000.0, 0.0)
WORKERS = 4
COLUMNS = {
    "requests_per_second": "requests/s", "latency_p50_us": "p50, µs", "latency_p99_us": "p99, µs",
    "server_latency_p99_us": "at server", "cpu_share": "CPU, %",
}  # fmt: skip
WARMUP_SECONDS = 8.0
"""In which connections are seen and attached, and the adapting one finds its way."""


class SeenAtServer:
    """A load of the lab, and the latency that the server's machine sees under it."""

    def __init__(self, load: Load, pids: Collection[int]):
        self._load, self._pids = load, pids
        self.settle, self.primed = load.settle, load.primed

    def measured(self, rate: float, seconds: float, seed: int, raw: Path, meter: Meter) -> Told:
        """As the load's."""
        with LatencyMeter(self._pids) as latency:
            told = self._load.measured(rate, seconds, seed, raw, Both(meter, latency))
            found = latency.window().together
        p99_ns = found.until_read.percentile_ns(0.99) if found else None
        return (
            told if p99_ns is None else replace(told, metrics=told.metrics | {"server_latency_p99_us": p99_ns / 1000})
        )


class Both:
    """A meter with which another begins."""

    def __init__(self, meter: Meter, latency: LatencyMeter):
        self._meter, self._latency = meter, latency
        self.end, self.trouble = meter.end, meter.trouble

    def begin(self) -> None:
        """Of both."""
        self._latency.restart()
        self._meter.begin()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--server", choices=("memcached", "nginx"), default="memcached")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--learn", type=float, default=30.0)
    parser.add_argument("--budget", default="150us")
    options = parser.parse_args()
    adapting = (f"adapt:{options.budget}", f"adapt:{options.budget}:latency")
    config = RunConfig(
        napctl=__version__,
        name="envelope",
        made_unix_ns=time.time_ns(),
        treatments=(*FIXED, *adapting),
        target=f"{options.server} of the lab",
        source="lab",
        rates=RATES,
        rounds=options.rounds,
        seconds=options.seconds,
        warmup_seconds=WARMUP_SECONDS,
        settle_seconds=0.05,
        learn_seconds=options.learn,
        seed=time.time_ns() % 10**6,
    )
    directory = RunDirectory(options.directory)
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="napctl-envelope-")))
        guard = stack.enter_context(watched(None, state))
        place = stack.enter_context(_environment(options.server, state, guard))
        directory.create(config, place.machine)
        tell = stack.enter_context(progress_line(options.seconds + WARMUP_SECONDS + 1, naming(config)))
        treatments = [parse_treatment(name, {}, {}) for name in config.treatments]
        assert place.place.server is not None
        load = SeenAtServer(place.load, [each.pid for each in place.place.server.found.processes])
        run(config, treatments, directory, place.place, load, place.meter, tell)
    print(*lines(directory.cells(), adapting, duration_ns(options.budget) / 1000), sep="\n")


def _environment(server: str, state: Path, guard: Guard) -> AbstractContextManager[Environment]:
    if server == "nginx":
        return web_environment(state, guard, workers=WORKERS, warmup_seconds=WARMUP_SECONDS)
    return lab_environment(state, guard, warmup_seconds=WARMUP_SECONDS, keys_per_get=1)


def lines(cells: Sequence[Cell], adapting: Sequence[str], budget_us: float) -> Iterator[str]:
    """Of each load: medians of the rounds."""
    yield f"{'load':<12}{'way':<20}" + "".join(f"{each:>12}" for each in COLUMNS.values())
    for load in dict.fromkeys(cell.load for cell in sorted(cells, key=lambda cell: cell.asked_per_second or 1e9)):
        for name in (*FIXED, *adapting):
            mine = [cell.metrics for cell in cells if (cell.load, cell.treatment) == (load, name) and not cell.failed]
            if mine:
                figures = [100 * _of(mine, each) if each == "cpu_share" else _of(mine, each) for each in COLUMNS]
                yield f"{load:<12}{name:<20}" + "".join(f"{each:>12,.0f}" for each in figures)
    yield f"Medians. Budget: {budget_us:.0f} µs for the p99 at the server, beside what the server needs by itself."


def _of(mine: Sequence[dict[str, float]], metric: str) -> float:
    return median(values) if (values := [each[metric] for each in mine if metric in each]) else float("nan")


if __name__ == "__main__":
    main()
