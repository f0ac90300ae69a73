"""Runs of which the truth is known, and what the verdicts make of them: noise as machines have it, differences or none.

`python -m tests.unit.stats.simulated` prints the error rates of docs/statistics.md (2,000 runs each).
"""

import random
import sys
from collections.abc import Callable, Iterable
from functools import partial
from math import exp, log
from typing import NamedTuple

from napctl.model.experiment import Cell, Comparison
from napctl.stats.verdicts import compare

LATENCY = ("latency_avg_us", "latency_p50_us", "latency_p95_us", "latency_p99_us", "latency_p999_us")
CPU = ("cpu_share", "server_cpu_share", "network_cpu_share", "softirq_share")
OTHERS = (
    "context_switches_per_second", "interrupts_per_second", "net_rx_softirqs_per_second", "polls_per_second",
    "packets_per_poll", "empty_poll_share",
)  # fmt: skip
TYPICAL = {
    "latency_avg_us": 180.0, "latency_p50_us": 160.0, "latency_p95_us": 310.0, "latency_p99_us": 420.0,
    "latency_p999_us": 900.0, "cpu_share": 0.2, "server_cpu_share": 0.15, "network_cpu_share": 0.06,
    "softirq_share": 0.05,
    "context_switches_per_second": 14_000.0, "interrupts_per_second": 9_000.0, "net_rx_softirqs_per_second": 12_000.0,
    "polls_per_second": 15_000.0, "packets_per_poll": 1.4, "empty_poll_share": 0.1,
}  # fmt: skip
RATES = {"20,000/s": 20_000.0, "60,000/s": 60_000.0, "max": None}


class Machine(NamedTuple):
    """Its noise: log-normal, of a size drawn for each metric; half of it is shared by the metrics of a group."""

    least: float = 0.01
    most: float = 0.08
    wild: float = 0.1
    """Share of cells that are off as a whole."""
    off: float = 0.3
    jumps: float = 0.0
    """A machine that is in one of two states, this far apart, in each cell anew."""
    drift: float = 0.05
    """Of a block, shared by all treatments."""


ROUGH = Machine()
QUIET = Machine(least=0.03, most=0.03, wild=0.0)
QUIET_BUT_WILD = Machine(least=0.03, most=0.03)
JUMPY = Machine(least=0.01, most=0.01, wild=0.0, jumps=0.3)


def cells(
    chance: random.Random,
    machine: Machine,
    rounds: int,
    loads: Iterable[str] = ("20,000/s",),
    treatments: Iterable[str] = ("base", "suspend:200us"),
    truth: Callable[[str, str, str], float] = lambda treatment, load, metric: 1.0,
) -> list[Cell]:
    """A run. `truth(treatment, load, metric)`: the factor by which it really differs."""
    found: list[Cell] = []
    names = (*LATENCY, *CPU, *OTHERS)
    spread = {name: chance.uniform(machine.least, machine.most) for name in names}
    for number in range(rounds):
        drift = {name: chance.gauss(0, machine.drift) for name in names}
        order = [(load, treatment) for load in loads for treatment in treatments]
        chance.shuffle(order)
        for load, treatment in order:
            shared = {"latency": chance.gauss(0, 1), "cpu": chance.gauss(0, 1), "others": chance.gauss(0, 1)}
            whole = chance.choice((1, -1)) * log(1 + machine.off) if chance.random() < machine.wild else 0.0
            whole += machine.jumps * (chance.random() < 0.5)
            metrics = {}
            for name in names:
                group = "latency" if name in LATENCY else "cpu" if name in CPU else "others"
                noise = spread[name] * (0.5**0.5) * (shared[group] + chance.gauss(0, 1))
                metrics[name] = TYPICAL[name] * truth(treatment, load, name) * exp(noise + whole + drift[name])
            metrics["latency_p50_us"] = float(round(metrics["latency_p50_us"]))
            rate = RATES[load]
            metrics["requests_per_second"] = rate * chance.gauss(1, 5e-4) if rate else 1e7 / metrics["latency_avg_us"]
            answered = metrics["requests_per_second"]
            metrics["cpu_us_per_request"] = metrics["cpu_share"] * 4e6 / answered
            metrics["server_cpu_us_per_request"] = metrics["server_cpu_share"] * 4e6 / answered
            metrics["drops_per_second"] = 0.0
            metrics["retransmits_per_second"] = sum(chance.random() < 0.1 for _ in range(5)) / 10
            found.append(
                Cell(
                    treatment=treatment, load=load, asked_per_second=rate, round=number, position=len(found),
                    started_unix_ns=0, seconds=10, metrics=metrics,
                )
            )  # fmt: skip
    return found


def judged(run: list[Cell]) -> tuple[Comparison, ...]:
    """As summarise() does, without its estimates and sentences, which take longer than the verdicts."""
    return compare(run, sorted({cell.treatment for cell in run} - {"base"}), "base")


def slower(by: float, treatment: str, load: str, metric: str) -> float:
    """The truth of a planted slowdown: all latencies of one treatment under one load."""
    return by if metric in LATENCY and (treatment, load) == ("suspend:200us", "20,000/s") else 1.0


def any_found(found: Iterable[Comparison], *, beside: float = 1.0) -> bool:
    """Whether a difference was found; `beside` other than 1: whether one was found where no slowdown was planted."""
    return any(
        each.judgement != "no difference found"
        for each in found
        if slower(beside, each.treatment, each.load, each.metric) == 1
    )


def worse(found: Iterable[Comparison]) -> set[str]:
    """The latencies that were found to be worse where the slowdown was planted."""
    return {
        each.metric
        for each in found
        if each.judgement == "worse" and slower(2, each.treatment, each.load, each.metric) != 1
    }


class Shape(NamedTuple):
    """How much is compared in a run."""

    loads: tuple[str, ...]
    treatments: tuple[str, ...]


SMALL = Shape(("20,000/s",), ("base", "suspend:200us"))
LARGE = Shape(("20,000/s", "60,000/s", "max"), ("base", "defer:200us", "suspend:20us", "suspend:200us"))


def _rates(runs: int) -> None:
    chance = random.Random(1)
    for name, shape in (("1 × 1", SMALL), ("3 × 3", LARGE)):
        for rounds in (4, 5, 6, 8, 12):
            for kind, machine in (("rough", ROUGH), ("quiet", QUIET), ("jumpy", JUMPY)):
                wrong = sum(any_found(judged(cells(chance, machine, rounds, *shape))) for _ in range(runs))
                print(f"{name} {rounds:2} rounds, {kind}, A/A: {wrong / runs:.2%} of runs with any", flush=True)
            for kind, machine in (("quiet", QUIET), ("wild", QUIET_BUT_WILD)):
                for by in (1.1, 1.3):
                    truth = partial(slower, by)
                    found = [judged(cells(chance, machine, rounds, *shape, truth)) for _ in range(runs)]
                    hits = [worse(each) for each in found]
                    any_of = sum(bool(hit) for hit in hits) / runs
                    p99 = sum("latency_p99_us" in hit for hit in hits) / runs
                    wrong = sum(any_found(each, beside=by) for each in found)
                    print(
                        f"{name} {rounds:2} rounds, {kind}, {by} times: any {any_of:.1%}, p99 {p99:.1%}, "
                        f"anything else {wrong / runs:.2%}", flush=True,
                    )  # fmt: skip


if __name__ == "__main__":
    _rates(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
