"""Energy as it was measured in a span: by kind, by zone, with its source, or the reason why there is no figure."""

from typing import Literal, get_args

from napctl.model.value import Value

__all__ = ["ADDED", "KINDS", "Energy", "EnergyEstimate", "Kind", "KindEnergy", "ZoneEnergy", "above_idle", "estimate"]


Kind = Literal["package", "core", "uncore", "dram", "psys", "platform"]
"""What a figure covers. `package`: the processors, with `core` and `uncore` in them. `dram`: the memory, beside them.
`psys`: what the processor's own meter takes for the whole board. `platform`: the machine, as its firmware or its BMC
measures it. Kinds overlap: they are never added to each other."""
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they are shown."""
ADDED: frozenset[Kind] = frozenset({"package", "core", "uncore", "dram"})
"""Kinds whose zones are apart from each other, one for each processor. Two zones of another kind may overlap."""


class ZoneEnergy(Value, frozen=True, kw_only=True):
    """One zone in a span."""

    name: str
    """As the source names it: "package-0", "package-0/dram"."""
    joules: float | None
    """None: a gap; `why` tells."""
    watts: float | None
    """Mean over `seconds`."""
    seconds: float
    """Between this zone's own first and last reading: zones are read one after the other."""
    why: str = ""
    resolution_uj: int | None = None
    """Of a counter, if it is known, µJ."""
    resolution_uw: int | None = None
    """Of a power that is summed over samples, if it is known, µW."""


class KindEnergy(Value, frozen=True, kw_only=True):
    """All zones of one kind, from one source."""

    kind: Kind
    source: str
    """One of "powercap", "perf", "hwmon", "IPMI"."""
    joules: float | None
    """The sum over all zones; None if one of them has a gap, or if they must not be added."""
    watts: float | None
    why: str = ""
    zones: tuple[ZoneEnergy, ...]


class Energy(Value, frozen=True, kw_only=True):
    """What was measured in a span of time. It is the whole machine's, whoever used it."""

    seconds: float
    cpu_share: float | None
    """Busy share of all CPUs; None if the span is too short to tell."""
    kinds: tuple[KindEnergy, ...]
    """Those that a source has; one source for each."""
    why: str = ""
    """Why nothing can be measured here, or why nothing was; empty: something was."""
    lacks: tuple[str, ...] = ()
    """Sentences: which source gives nothing, or was passed over, and why."""

    def of(self, kind: Kind) -> KindEnergy | None:
        """That kind; None if no source has it."""
        return next((found for found in self.kinds if found.kind == kind), None)


class EnergyEstimate(Value, frozen=True, kw_only=True):
    """Not measured: idle + (busy - idle) × cpu_share, from figures that the user gave."""

    idle_watts: float
    busy_watts: float
    cpu_share: float
    watts: float
    joules: float


def estimate(energy: Energy, idle_watts: float, busy_watts: float) -> EnergyEstimate | None:
    """What the machine may have used, if its power is a straight line in its CPU share. None if that is not known."""
    if energy.cpu_share is None:
        return None
    watts = idle_watts + (busy_watts - idle_watts) * energy.cpu_share
    return EnergyEstimate(
        idle_watts=idle_watts,
        busy_watts=busy_watts,
        cpu_share=energy.cpu_share,
        watts=watts,
        joules=watts * energy.seconds,
    )


def above_idle(energy: Energy, idle: Energy) -> dict[str, float]:
    """Joules by kind beyond what the idle machine would have used in the same time; negative: it used less.

    A kind that was not measured in both, or by another source, is missing.
    """
    found: dict[str, float] = {}
    for kind in energy.kinds:
        baseline = idle.of(kind.kind)
        if kind.joules is None or baseline is None or baseline.watts is None or baseline.source != kind.source:
            continue
        found[kind.kind] = kind.joules - baseline.watts * kind.zones[0].seconds
    return found
