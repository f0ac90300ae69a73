"""The idle baseline of a run: what the machine uses before the first cell, while nothing is asked of it."""

from collections.abc import Callable
from typing import Protocol

from napctl.model.energy import Energy, Kind
from napctl.model.experiment import RunConfig
from napctl.model.units import figure
from napctl.observe.energy import metrics_of

__all__ = ["IDLE_SECONDS", "QUIET", "baseline_doubt", "baseline_sentence", "idle_baseline"]


IDLE_SECONDS = 2.0
"""RAPL moves once in a millisecond; a BMC, which averages over seconds, says less of it."""
QUIET = 0.10
"""Busy share of all CPUs beyond which the machine cannot be called idle."""
SHOWN: dict[str, tuple[str, tuple[Kind, ...]]] = {
    "package_watts": ("package", ("package",)),
    "dram_watts": ("DRAM", ("dram",)),
    "platform_watts": ("platform", ("platform", "psys")),
}
"""By metric, in their order: its name, and the kinds that it may be of."""


class IdleMeter(Protocol):
    """What napctl.experiment.meter.CellMeter has of energy."""

    @property
    def why_no_energy(self) -> str:
        """Empty: it can be measured."""

    def idle(self, seconds: float) -> Energy:
        """Measure for so long, doing nothing."""


def idle_baseline(config: RunConfig, meter: IdleMeter, tell: Callable[[str], None]) -> Energy:
    """Measure it, for IDLE_SECONDS; `tell` is told before. Where nothing can be measured, or traffic is there all the
    time, it takes none, and the reason is in it."""
    if meter.why_no_energy:
        return meter.idle(0)
    if config.source == "live":
        return Energy(seconds=0, cpu_share=None, kinds=(), why="no idle baseline: the traffic is there all the time")
    tell(f"measuring for {IDLE_SECONDS:g} s what the machine uses while nothing is asked of it")
    return meter.idle(IDLE_SECONDS)


def baseline_sentence(baseline: Energy) -> str:
    """In one line: "idle: package 12.3 W, DRAM 2.1 W (powercap); CPU 2 % busy meanwhile"; or why there is none."""
    if baseline.why:
        return f"energy: {baseline.why}"
    metrics, sources = metrics_of(baseline)
    one = len(set(sources.values())) == 1
    told, gaps = [], []
    for metric, (name, kinds) in SHOWN.items():
        if metric in metrics:
            told.append(f"{name} {figure(metrics[metric])} W" + ("" if one else f" ({sources[metric]})"))
        else:
            gaps += [f"{kind}: no figure: {found.why}" for kind in kinds if (found := baseline.of(kind))]
    source = f" ({next(iter(sources.values()))})" if one else ""
    figures = [", ".join(told) + source] if told else [] if gaps else ["neither package, DRAM nor platform is measured"]
    busy = [] if baseline.cpu_share is None else [f"CPU {_percent(baseline.cpu_share)} busy meanwhile"]
    return f"idle: {'; '.join([*figures, *gaps, *busy])}"


def baseline_doubt(baseline: Energy) -> str:
    """Why it is no baseline for what is above idle; empty: nothing speaks against it."""
    if baseline.why or baseline.cpu_share is None or baseline.cpu_share <= QUIET:
        return ""
    return (
        f"the idle baseline is doubtful: the machine was not idle, its CPUs were {_percent(baseline.cpu_share)} busy, "
        "so what is above idle is too little"
    )


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
