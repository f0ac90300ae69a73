"""Energy over spans of time: one source for each kind, read often enough that no wrap is missed. Never a guess."""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple, Self

from napctl.kernel.cpu_time import idle_seconds
from napctl.kernel.energy.sources import Roots, all_sources, why_nothing
from napctl.kernel.energy.zones import Found, Unreadable, Zone
from napctl.model.energy import ADDED, KINDS, Energy, Kind, KindEnergy, ZoneEnergy
from napctl.observe.energy_tally import SpanStart, Tally, seconds_between_readings

__all__ = ["EnergyMeter", "metrics_of"]


SHORTEST_FOR_CPU_SECONDS = 0.2
"""Idle time is told in steps of 10 ms: of a shorter span the share would be a guess."""
SLOW_SOURCES = frozenset({"IPMI"})
"""Read first where a span begins and last where it ends, so that nothing else waits for them within it."""


class Beginning(NamedTuple):
    """Where a span begins."""

    at_ns: int
    idle_seconds: dict[int, float]
    marks: tuple[SpanStart, ...]


class _Chosen(NamedTuple):
    kind: Kind
    source: str
    tallies: tuple[Tally, ...]


class EnergyMeter:
    """Reads the machine's energy while it is open. Use as a context manager: begin(), then since() as often as wanted.

    Each source is read by a thread of its own: of seven RAPL zones it takes about 0.2 ms of CPU time each second.
    """

    def __init__(self, roots: Roots | None = None):
        self._roots = roots or Roots()
        sources = all_sources(self._roots)
        self._chosen, told = _choose(sources)
        self.lacks = tuple(f"{found.source}: {lack}" for found in sources for lack in found.lacks) + told
        self.why = "" if self._chosen else f"not measurable here: {why_nothing(self._roots, sources)}"
        self._tallies = tuple(tally for chosen in self._chosen for tally in chosen.tallies)
        slow = {tally for chosen in self._chosen if chosen.source in SLOW_SOURCES for tally in chosen.tallies}
        self._fast = tuple(tally for tally in self._tallies if tally not in slow)
        self._slow = tuple(slow)
        self._locks = {tally: threading.Lock() for tally in self._tallies}
        self._ended = threading.Event()
        by_source: dict[str, list[Tally]] = {}
        for chosen in self._chosen:
            by_source.setdefault(chosen.source, []).extend(chosen.tallies)
        self._threads = [
            threading.Thread(target=self._keep_reading, args=(tuple(tallies),), daemon=True, name=f"energy-{source}")
            for source, tallies in by_source.items()
        ]
        kept = {id(tally.zone) for tally in self._tallies}
        _close(zone for found in sources for zone in found.zones if id(zone) not in kept)

    @property
    def sources(self) -> dict[Kind, str]:
        """The source that is used for each kind; kinds that cannot be measured are missing."""
        return {chosen.kind: chosen.source for chosen in self._chosen}

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        _close(tally.zone for tally in self._tallies)

    def begin(self) -> Beginning:
        """Begin a span now; as many may overlap as wanted. A slow source takes up to a second."""
        self._read_all((*self._slow, *self._fast))
        marks = []
        for tally in self._tallies:
            with self._locks[tally]:
                marks.append(tally.mark())
        return Beginning(_now(), idle_seconds(), tuple(marks))

    def since(self, beginning: Beginning) -> Energy:
        """What was used between then and now."""
        now, idle = _now(), idle_seconds()
        self._read_all((*self._fast, *self._slow))
        seconds = (now - beginning.at_ns) / 1e9
        marks = dict(zip(self._tallies, beginning.marks, strict=True))
        return Energy(
            seconds=seconds,
            cpu_share=_busy_share(beginning.idle_seconds, idle, seconds),
            kinds=tuple(self._kind(chosen, marks) for chosen in self._chosen),
            why=self.why,
            lacks=self.lacks,
        )

    def idle(self, seconds: float, sleep: Callable[[float], None] = time.sleep) -> Energy:
        """What the machine uses while we do nothing for that long: a baseline, if nobody else does anything either."""
        beginning = self.begin()
        sleep(seconds)
        return self.since(beginning)

    def _keep_reading(self, tallies: tuple[Tally, ...]) -> None:
        pause = min(seconds_between_readings(tally.zone) for tally in tallies)
        while not self._ended.wait(pause):
            self._read_all(tallies)

    def _read_all(self, tallies: Iterable[Tally]) -> None:
        for tally in tallies:
            with self._locks[tally]:
                _read(tally)

    def _kind(self, chosen: _Chosen, marks: dict[Tally, SpanStart]) -> KindEnergy:
        zones = []
        for tally in chosen.tallies:
            with self._locks[tally]:
                zones.append(_zone_energy(tally, marks[tally]))
        return summed(chosen.kind, chosen.source, tuple(zones))


def summed(kind: Kind, source: str, zones: tuple[ZoneEnergy, ...]) -> KindEnergy:
    """All zones of a kind together: a sum only if none has a gap, and none can overlap with another."""
    gaps = [f"{zone.name}: {zone.why}" for zone in zones if zone.joules is None]
    if not gaps and len(zones) > 1 and kind not in ADDED:
        gaps = [f"there are {len(zones)} zones of it, which may overlap: they are not added"]
    joules = [zone.joules for zone in zones if zone.joules is not None]
    watts = [zone.watts for zone in zones if zone.watts is not None]
    return KindEnergy(
        kind=kind,
        source=source,
        joules=None if gaps else sum(joules),
        watts=None if gaps else sum(watts),
        why="; ".join(gaps),
        zones=zones,
    )


def metrics_of(energy: Energy) -> tuple[dict[str, float], dict[str, str]]:
    """(Cell.metrics, Cell.sources) of an experiment: package_watts, dram_watts, platform_watts; not measured: missing.

    The machine's own meter stands for the platform if there is one, else the processor's (psys).
    """
    metrics: dict[str, float] = {}
    sources: dict[str, str] = {}
    for name, kinds in (("package", ("package",)), ("dram", ("dram",)), ("platform", ("platform", "psys"))):
        for kind in energy.kinds:
            if kind.kind in kinds and kind.watts is not None and (kind.kind == name or f"{name}_watts" not in metrics):
                metrics[f"{name}_watts"] = kind.watts
                sources[f"{name}_watts"] = kind.source if kind.kind == name else f"{kind.source} ({kind.kind})"
    return metrics, sources


def _choose(sources: Iterable[Found]) -> tuple[list[_Chosen], tuple[str, ...]]:
    """For each kind the first source all of whose zones can be read now; and what was passed over, and why."""
    chosen: dict[Kind, _Chosen] = {}
    refused: dict[tuple[str, str], list[str]] = {}
    for found in sources:
        for kind in KINDS:
            zones = [zone for zone in found.zones if zone.kind == kind]
            if not zones or kind in chosen:
                continue
            tallies = tuple(Tally(zone) for zone in zones)
            why = next((f"{zone.name}: {tally.mark().why}" for zone, tally in zip(zones, tallies, strict=True)
                        if not _read(tally)), None)  # fmt: skip
            if why is None:
                chosen[kind] = _Chosen(kind, found.source, tallies)
            else:
                refused.setdefault((found.source, why.partition(": ")[2]), []).append(why.partition(": ")[0])
    told = tuple(f"{source}: {', '.join(names)}: {why}" for (source, why), names in refused.items())
    return [chosen[kind] for kind in KINDS if kind in chosen], told


def _read(tally: Tally) -> bool:
    """Whether that was possible. The time of a reading is the middle of the time that it took."""
    began = _now()
    try:
        value = tally.zone.read()
    except Unreadable as error:
        tally.miss(str(error))
        return False
    tally.add((began + _now()) // 2, value)
    return not tally.mark().why


def _zone_energy(tally: Tally, mark: SpanStart) -> ZoneEnergy:
    span, zone = tally.since(mark), tally.zone
    return ZoneEnergy(
        name=zone.name,
        joules=span.joules,
        watts=span.joules / span.seconds if span.joules is not None and span.seconds > 0 else None,
        seconds=span.seconds,
        why=span.why,
        resolution_uj=None if zone.is_power else zone.resolution,
        resolution_uw=zone.resolution if zone.is_power else None,
    )


def _busy_share(before: dict[int, float], after: dict[int, float], seconds: float) -> float | None:
    cpus = before.keys() & after.keys()
    if not cpus or seconds < SHORTEST_FOR_CPU_SECONDS:
        return None
    idle = sum(after[cpu] - before[cpu] for cpu in cpus)
    return min(1.0, max(0.0, 1 - idle / (len(cpus) * seconds)))


def _close(zones: Iterable[Zone]) -> None:
    for zone in zones:
        with suppress(OSError):
            zone.close()


def _now() -> int:
    """A clock that goes on while the machine sleeps, ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
