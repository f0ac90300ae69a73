"""Runs as they could have been measured, without a machine: figures after those published for IRQ suspension."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napctl.experiment.run_directory import RunDirectory
from napctl.model.experiment import Cell, RunConfig, Summary
from napctl.report.summary import Run, summarise

TREATMENTS = ("base", "defer:200us", "suspend:20us", "suspend:200us", "plan:nic.toml")
FAILED, WITHOUT_ENERGY = "plan:nic.toml", "suspend:200us"
WHY = "eth0: the driver refused rx-usecs 300: at most 250"
RATES = (20_000.0, 60_000.0, 0.0)
LOADS = {20_000.0: "20,000/s", 60_000.0: "60,000/s", 0.0: "max"}
MACHINE: dict[str, Any] = {
    "kernel": "6.18.3",
    "cpu": {"model": "AMD EPYC 7662 64-Core Processor", "online": "0-3", "governor": "performance", "smt": False},
    "memory_bytes": 16_777_216_000,
    "devices": [{"name": "eth0", "driver": "mlx5_core", "speed_mbps": 25_000, "queues": {"rx": 1, "tx": 1}}],
    "settings": {"net.core.busy_poll": 0, "net.ipv4.tcp_limit_output_bytes": 4_194_304},
    "mitigations": ["spectre_v2: Retpolines", "meltdown: Not affected"],
}
#            p50 µs, p99 µs, CPU µs per request, network share of CPU, watts, polls by the server
PLAUSIBLE: dict[str, dict[float, tuple[float, float, float, float, float, float]]] = {
    "base": {
        20_000: (158, 416, 19.4, 0.41, 61, 0), 60_000: (236, 574, 14.2, 0.44, 74, 0), 0: (610, 1038, 10.6, 0.47, 92, 0),
    },
    "defer:200us": {
        20_000: (205, 309, 13.4, 0.30, 57, 0), 60_000: (212, 357, 10.5, 0.33, 68, 0), 0: (604, 1041, 10.5, 0.46, 92, 0),
    },
    "suspend:20us": {
        20_000: (92, 151, 24.6, 0.45, 66, 0.45), 60_000: (118, 194, 14.9, 0.38, 73, 0.53),
        0: (590, 1216, 8.9, 0.36, 92, 0.9),
    },
    "suspend:200us": {
        20_000: (198, 306, 14.3, 0.32, 57, 0.67), 60_000: (206, 346, 10.7, 0.33, 67, 0.96),
        0: (592, 1217, 8.8, 0.36, 91, 0.99),
    },
    "fullbusy": {
        20_000: (60, 100, 48, 0.5, 99, 0.9), 60_000: (70, 120, 16, 0.5, 99, 0.9), 0: (600, 1040, 10.4, 0.4, 99, 0.9),
    },
}  # fmt: skip


def config(name: str = "memcached", **changes: Any) -> RunConfig:
    """What was asked for."""
    asked: dict[str, Any] = {
        "napctl": "0.1.0", "name": name, "made_unix_ns": 1_771_234_567_000_000_000, "treatments": TREATMENTS,
        "hooks": {"plan:nic.toml": ("napctl apply nic.toml", "napctl rollback")}, "target": "memcached",
        "load": "mutilate -s 10.0.0.1 -q {rate} -t {seconds} --seed {seed}", "adapter": "mutilate", "rates": RATES,
        "rounds": 6, "seconds": 10.0, "warmup_seconds": 2.0, "settle_seconds": 0.5, "seed": 20_260_216,
    }  # fmt: skip
    return RunConfig(**(asked | changes))


def cells(asked: RunConfig, *, energy: bool = True, slower: float = 1.0) -> tuple[Cell, ...]:
    """Every treatment under every load in every round; `slower`: all times by that much."""
    chance = random.Random(asked.seed)
    found: list[Cell] = []
    for number in range(1, asked.rounds + 1):
        order = [(treatment, rate) for treatment in asked.treatments for rate in asked.rates]
        chance.shuffle(order)
        drift = chance.gauss(1, 0.02)
        for treatment, rate in order:
            found.append(_cell(treatment, rate, number, len(found) + 1, drift * slower, energy, asked, chance))
    return tuple(found)


def _cell(
    treatment: str, rate: float, number: int, position: int, drift: float, energy: bool, asked: RunConfig,
    chance: random.Random,
) -> Cell:  # fmt: skip
    started = asked.made_unix_ns + position * round((asked.seconds + asked.warmup_seconds) * 1e9)
    common: dict[str, Any] = {
        "treatment": treatment, "load": LOADS.get(rate, f"{rate:,.0f}/s"), "asked_per_second": rate or None,
        "round": number, "position": position, "started_unix_ns": started, "seconds": asked.seconds,
    }  # fmt: skip
    if treatment not in PLAUSIBLE:
        return Cell(**common, failed=WHY)
    p50, p99, cost, network, watts, by_server = PLAUSIBLE[treatment][rate]

    def around(value: float, spread: float = 0.02) -> float:
        return max(0.0, value * drift * chance.gauss(1, spread))

    answered = rate * chance.gauss(1, 0.0005) if rate else around(10_000 * 1000 / p99 * 4 + 60_000, 0.01)
    cost = around(cost)
    polls = answered * (0.9 if not by_server else 0.55)
    metrics = {
        "requests_per_second": answered, "latency_avg_us": around(p50 * 1.12), "latency_p50_us": around(p50),
        "latency_p95_us": around(p99 * 0.78), "latency_p99_us": around(p99, 0.05),
        "latency_p999_us": around(p99 * 2.1, 0.12),
        "cpu_us_per_request": cost, "cpu_share": cost * answered / 1e6 / 4, "network_cpu_share": around(network),
        "server_cpu_us_per_request": cost * 0.86, "server_cpu_share": cost * answered / 1e6 * 0.86,
        "softirq_share": around(network * 0.3), "context_switches_per_second": around(answered * 0.7),
        "interrupts_per_second": around(answered * (0.4 if not by_server else 0.05)), "polls_per_second": around(polls),
        "packets_per_poll": around(1.3 if not by_server else 2.1), "server_poll_share": by_server,
        "empty_poll_share": around(0.2 if by_server else 0.08), "drops_per_second": 0.0,
    }  # fmt: skip
    sources = {"cpu_share": "/proc/stat", "latency_p99_us": "mutilate", "network_cpu_share": "BPF, sched and NAPI"}
    if energy and treatment != WITHOUT_ENERGY:
        metrics |= {"package_watts": around(watts, 0.01), "joules_per_request": around(watts, 0.01) / answered}
        sources["package_watts"] = "RAPL package-0"
    return Cell(
        **common, metrics=metrics, sources=sources, polls=_polls(polls * asked.seconds, by_server),
        latency=((p50, round(answered * 5)), (p99, round(answered * 4.9)), (p99 * 3, round(answered * 0.1))),
        warnings=("the load was late with 2.1 % of its requests",) if position == 7 else (),
    )  # fmt: skip


def _polls(total: float, by_server: float) -> dict[str, tuple[int, ...]]:
    def spread(polls: float, grows: float, empty: float) -> tuple[int, ...]:
        weights = [empty, *(grows**packets for packets in range(1, 66))]
        return tuple(round(polls * weight / sum(weights)) for weight in weights)

    if not by_server:
        return {"softirq": spread(total, 0.3, 0.05)}
    return {"softirq": spread(total * (1 - by_server), 0.3, 0.2), "server": spread(total * by_server, 0.72, 0.4)}


def summary(asked: RunConfig, measured: Sequence[Cell]) -> Summary:
    """What napctl says of them."""
    return summarise(measured, asked.treatments[0], asked.seed)


def run(name: str = "memcached", *, energy: bool = True, slower: float = 1.0, **changes: Any) -> Run:
    """A whole run: five treatments × three loads × six rounds. One treatment failed, one has no energy."""
    asked = config(name, **changes)
    measured = cells(asked, energy=energy, slower=slower)
    return Run(config=asked, machine=MACHINE, cells=measured, summary=summary(asked, measured))


DEMO = ("base", "suspend:20us", "suspend:200us", "defer:200us", "fullbusy")


def demo() -> Run:
    """As `napctl demo` measures: with the load "rest", where nothing is compared."""
    asked = config("demo", treatments=DEMO, source="lab", hooks={}, load="", rounds=8, rest_rounds=2, seed=123_456)
    rest = tuple(
        Cell(treatment=name, load="rest", asked_per_second=0.0, round=number, position=1000 + number, started_unix_ns=0,
             seconds=0.5, metrics={"cpu_share": 1.0 if name == "fullbusy" else 0.01 + place / 1000})
        for number in (1, 2) for place, name in enumerate(DEMO)
    )  # fmt: skip
    measured = (*cells(asked, energy=False), *rest)
    return Run(config=asked, machine=MACHINE, cells=measured, summary=summary(asked, measured))


def written(path: Path, measured: Run) -> RunDirectory:
    """That run as a directory."""
    directory = RunDirectory(path)
    directory.create(measured.config, measured.machine)
    if measured.baseline:
        directory.write_baseline(measured.baseline)
    for cell in measured.cells:
        directory.append(cell)
    directory.write_summary(measured.summary)
    return directory
