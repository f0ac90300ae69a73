"""A Finding: something about a machine that costs or endangers, with what shows it and what to do."""

from typing import Literal

from napctl.model.machine import SCHEMA, Machine
from napctl.model.value import Value
from napctl.model.window import Window

Certainty = Literal["certain", "likely", "possible"]
"""`certain`: read or counted. `likely`: inferred from counts, another explanation is rare. `possible`: worth a look."""


class Evidence(Value, frozen=True, kw_only=True):
    """One fact with its figure, and where it was read."""

    text: str
    source: str
    """For example "probe", "/proc/net/softnet_stat", "ethtool netlink"."""


class Finding(Value, frozen=True, kw_only=True):
    """What one rule found about one object."""

    rule: str
    """Name of the rule, stable: "tx-only-interrupts"."""
    where: str
    """For example "eth0", "NAPI 12 of eth0 (rx0)", "nginx (1234)"."""
    title: str
    """One sentence with the figure."""
    evidence: tuple[Evidence, ...]
    consequence: str
    """What it costs or endangers."""
    remedy: str
    """What to do, in words; may be empty of commands."""
    commands: tuple[str, ...] = ()
    """Ready to be run."""
    certainty: Certainty
    basis: str
    """Source of the rule: kernel document, commit or published note."""


class ProcessUse(Value, frozen=True, kw_only=True):
    """A process that matters to packet reception, during the window."""

    pid: int
    name: str
    cpu_seconds: float | None = None
    """CPU time of all its threads in the window; None where it could not be read."""
    cpus: tuple[int, ...] = ()
    """CPUs on which its threads were seen."""


class Checkup(Value, frozen=True, kw_only=True):
    """All that the rules look at: the machine at the beginning and the end of a window, and the window."""

    schema: int = SCHEMA
    before: Machine
    machine: Machine
    window: Window
    processes: tuple[ProcessUse, ...] = ()
    """Busy-polling processes, processes that receive from these devices, and irqbalance."""
    cpu_count: int
    """CPUs online."""
