"""What `napctl energy` says to a person, on standard error: the command has standard output for itself."""

from collections.abc import Iterator

from napctl.cli.text.table import number, percent, wrapped
from napctl.model.energy import Energy, EnergyEstimate, Kind, KindEnergy, ZoneEnergy

__all__ = ["lines"]


COVERS: dict[Kind, str] = {
    "package": "the processors",
    "core": "in package",
    "uncore": "in package",
    "dram": "beside package",
    "psys": "the board, as the processor tells it",
    "platform": "the whole machine",
}
"""Kinds overlap: without this somebody will add them."""
WATT = 1_000_000


def lines(
    energy: Energy,
    idle: Energy | None,
    above_idle: dict[str, float],
    estimate: EnergyEstimate | None,
    *,
    estimated: bool,
    run: str,
) -> Iterator[str]:
    """All of it. `run`: how the command went; `estimated`: an estimate was asked for."""
    busy = f", CPUs {percent(energy.cpu_share)} busy" if energy.cpu_share is not None else ""
    yield from wrapped(f"{energy.seconds:.2f} s{busy}; {run}")
    for kind in energy.kinds:
        yield from _kind(kind, idle.of(kind.kind) if idle else None, above_idle.get(kind.kind))
    if energy.why:
        yield from wrapped(f"energy: {energy.why}", rest="  ")
    if idle is not None and idle.kinds:
        busy = f", with its CPUs {percent(idle.cpu_share)} busy" if idle.cpu_share is not None else ""
        yield from wrapped(f"idle: measured for {idle.seconds:.1f} s before{busy}", rest="  ")
    for lack in energy.lacks:
        yield from wrapped(lack, first="  - ", rest="    ")
    if estimate is not None:
        yield from wrapped(
            f"estimate, not measured: {_joules(estimate.joules)}, {number(estimate.watts)} W, if the machine takes "
            f"{estimate.idle_watts:g} W idle, {estimate.busy_watts:g} W busy, and a straight line between (CPUs "
            f"{percent(estimate.cpu_share)} busy)",
            rest="  ",
        )
    elif estimated:
        yield "estimate: none, as the command was too short to tell how busy the CPUs were"


def _kind(kind: KindEnergy, idle: KindEnergy | None, above: float | None) -> Iterator[str]:
    head = f"{kind.kind} ({COVERS[kind.kind]}; {kind.source}{_resolution(kind.zones)})"
    if kind.joules is None:
        yield from wrapped(f"{head}: no figure: {kind.why}", rest="  ")
    else:
        yield from wrapped(f"{head}: {_joules(kind.joules)}, {_watts(kind.watts)}", rest="  ")
    if len(kind.zones) > 1:
        for zone in kind.zones:
            if zone.joules is not None:
                yield f"  {zone.name}: {_joules(zone.joules)}, {_watts(zone.watts)}"
    if idle is not None:
        if idle.watts is None:
            yield from wrapped(f"no idle figure: {idle.why}", first="  ", rest="  ")
        else:
            yield f"  idle: {_watts(idle.watts)}" + (f"; above that: {_joules(above)}" if above is not None else "")


def _resolution(zones: tuple[ZoneEnergy, ...]) -> str:
    """Only where it is so coarse that it matters to a reader."""
    coarsest = max((zone.resolution_uw or 0 for zone in zones), default=0)
    return f", in steps of {coarsest / WATT:g} W" if coarsest >= WATT // 10 else ""


def _joules(joules: float) -> str:
    return f"{number(joules) if joules >= 0 else '-' + number(-joules)} J"


def _watts(watts: float | None) -> str:
    return f"{number(watts)} W"
