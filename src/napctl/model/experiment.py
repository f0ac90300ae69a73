"""An experiment as plain data: what was asked for, each cell as it was measured, and what may be said of it."""

from typing import Literal

import msgspec

from napctl.model.machine import SCHEMA
from napctl.model.plan import Plan
from napctl.model.value import Value

__all__ = [
    "LIVE",
    "MAX",
    "NOTHING",
    "Cell",
    "Comparison",
    "Estimate",
    "Judgement",
    "RunConfig",
    "SavingsBound",
    "Summary",
    "saved_metric",
]


Judgement = Literal["better", "worse", "different", "no difference found"]
"""`different`: of a metric of which neither way is better."""
NOTHING: Literal["no difference found"] = "no difference found"

MAX, LIVE = "max", "live"
"""Loads whose rate is not the experiment's choice: requests/s is a result there."""


class RunConfig(Value, frozen=True, kw_only=True):
    """What an experiment is: enough to repeat it, and to go on with it. `config.json` of a run."""

    schema: int = SCHEMA
    napctl: str
    """Version of napctl that made it."""
    name: str
    made_unix_ns: int
    treatments: tuple[str, ...]
    """As they were asked for: "base", "defer:200us", "suspend:20us", "plan:nic.toml", …; the first is the reference."""
    hooks: dict[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    """By name of a treatment: shell commands that begin and end it."""
    plans: dict[str, Plan] = msgspec.field(default_factory=dict)
    """By name of a treatment: what it applies, as its file was when the run began."""
    target: str = ""
    """The server, as `attach` takes it."""
    devices: tuple[str, ...] = ()
    netns: str = ""
    """Where no server is named: the devices to look at, and their network namespace as given. Empty: all, and ours."""
    source: str = "load"
    """Of the load: "load", a command; "live", the traffic that is there; "lab", the lab's own."""
    load: str = ""
    """Its command, with {rate}, {seconds} and {seed} to be filled in."""
    max_load: str = ""
    """The command for as much as possible; empty: the same."""
    adapter: str = ""
    """How its output is read."""
    rates: tuple[float, ...] = ()
    """Requests per second asked for; 0 stands for as many as possible."""
    rounds: int
    rest_rounds: int | None = None
    """How often the load "rest" is measured; None: as often as the others."""
    seconds: float
    """Length of the measured part of a cell."""
    warmup_seconds: float
    settle_seconds: float
    learn_seconds: float = 0.0
    """Under each load before the first round, which is not counted, for treatments that adapt."""
    limit_seconds: float = 3600
    """Of a cell's load: it is ended then, and the cell has failed."""
    seed: int
    max_wait_p99_us: float | None = None
    max_drops_per_second: float | None = None
    max_retransmits_per_second: float | None = None
    """What live traffic may suffer before a treatment is taken back. None: no limit."""
    idle_watts: float | None = None
    busy_watts: float | None = None
    """Given by the user, for an estimate where nothing measures."""


class Cell(Value, frozen=True, kw_only=True):
    """One treatment under one load, once. One line of `cells.jsonl`."""

    schema: int = SCHEMA
    treatment: str
    load: str
    """Name of the load: "20,000/s", "max", "live"."""
    asked_per_second: float | None
    """None: as many as possible, or live traffic; 0: connections are open, and nothing is asked for."""
    round: int
    """Block: each contains every treatment under every load once, in random order."""
    position: int
    """The how manieth cell of the run it was."""
    started_unix_ns: int
    seconds: float
    failed: str = ""
    """Why there are no figures; empty: there are."""
    harmful: bool = False
    """Live traffic suffered under it beyond a limit: it is not tried again."""
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    """By Metric.name; what was not measured is missing, never 0."""
    sources: dict[str, str] = msgspec.field(default_factory=dict)
    """Where a figure comes from, if it could come from more than one place."""
    latency: tuple[tuple[float, int], ...] = ()
    """(latency in µs, requests): with at most that latency and more than the entry before; empty: not told."""
    polls: dict[str, tuple[int, ...]] = msgspec.field(default_factory=dict)
    """Polls by packets found (0 … 64, and more), by who made them: "softirq", "NAPI thread", "server", "others"."""
    warnings: tuple[str, ...] = ()
    """What makes its figures doubtful: one sentence each."""


class Estimate(Value, frozen=True, kw_only=True):
    """A metric of one treatment under one load: median over rounds with its bootstrap interval."""

    treatment: str
    load: str
    metric: str
    median: float
    low: float
    high: float
    rounds: int


class Comparison(Value, frozen=True, kw_only=True):
    """A treatment against another, paired by block."""

    treatment: str
    reference: str
    load: str
    metric: str
    ratio: float
    """Median over blocks of treatment by reference."""
    low: float
    high: float
    """Interval of that ratio at 95 %, corrected for the number of comparisons."""
    judgement: Judgement
    smallest: float
    """The smallest difference, as a share of the reference, that this experiment could have found."""
    blocks: int
    stand_in: float | None = None
    """What stands for 0 in the ratios, so that they are finite: half the smallest figure that was not 0. None: none
    was 0. 0.0: all were 0 in every block; then ratio is 1 and smallest 0, both without meaning."""


class SavingsBound(Value, frozen=True, kw_only=True):
    """How much of the machine's CPU time a change of the way packets are taken can save at all."""

    load: str
    network_cpu_share: float
    """Share of the busy CPU time that the reference spends on taking packets, 0 … 1: no change can save more."""
    saved_share: dict[str, float]
    """By treatment: share of the busy CPU time that it saved; negative: it costs."""


class Summary(Value, frozen=True, kw_only=True):
    """What may be said of a run. `summary.json` of it."""

    schema: int = SCHEMA
    estimates: tuple[Estimate, ...]
    comparisons: tuple[Comparison, ...]
    """With the reference."""
    bounds: tuple[SavingsBound, ...]
    warnings: tuple[str, ...] = ()
    """What makes its figures doubtful."""
    sentences: tuple[str, ...] = ()
    """The verdicts in words, the most important first."""
    between: tuple[Comparison, ...] = ()
    """Of treatments with others than the reference, in what experiments are made for."""


def saved_metric(load: str) -> str:
    """In which CPU time is saved under that load: for each request, where their rate is a result."""
    return "cpu_us_per_request" if load == MAX else "cpu_share"
