"""The readings of one zone, summed: joules where every step between two of them is sure, else a gap and its reason."""

from typing import NamedTuple

from napctl.kernel.energy.zones import Zone
from napctl.model.energy import Kind

__all__ = ["MOST_WATTS", "STILL_SECONDS", "Span", "SpanStart", "Tally", "seconds_between_readings"]


MOST_WATTS: dict[Kind, int] = {
    "package": 2_000,
    "core": 2_000,
    "uncore": 2_000,
    "dram": 1_000,
    "psys": 20_000,
    "platform": 100_000,
}
"""More than any zone can take. In 2025 a processor takes at most about 500 W: what comes to more was no consumption."""
GRACE_SECONDS = 0.5
"""A counter may be brought up to date late: the energy of this time more may come with one step."""
STILL_SECONDS = 1.0
"""RAPL's registers move about a thousand times a second: one that stands for so long counts nothing."""
MOST_SECONDS_BETWEEN_POWERS = 15.0
"""Between samples of a power that are further apart nobody knows what it was."""
MAY_REST: frozenset[Kind] = frozenset({"uncore"})
"""A graphics unit that is switched off uses nothing."""


class SpanStart(NamedTuple):
    """Where a span begins."""

    at_ns: int
    """Of the zone's last good reading."""
    total: int
    gaps: int
    why: str
    """Why it is no beginning; empty: it is one."""


class Span(NamedTuple):
    """What was summed since a mark."""

    joules: float | None
    seconds: float
    why: str
    """Why there is no figure; empty: there is one."""


class Tally:
    """Sums one zone. Times are ns of a clock that does not stop in sleep (CLOCK_BOOTTIME)."""

    def __init__(self, zone: Zone):
        self.zone = zone
        self._most = MOST_WATTS[zone.kind]
        self._last: tuple[int, int] | None = None
        self._moved_ns = 0
        self._total = 0
        """In fJ: of a counter µJ × 10^9, of a power the area below it, µW × ns. Whole numbers lose nothing."""
        self._gaps: list[str] = []
        self._bad = "it was not read yet"
        """Why a span must not begin here; empty: it may."""

    def add(self, at_ns: int, value: int) -> None:
        """A reading, µJ or µW; later than the one before."""
        if self.zone.is_power:
            self._add_power(at_ns, value)
        else:
            self._add_count(at_ns, value)

    def miss(self, why: str) -> None:
        """A reading that failed. What the zone used until the next good one is not known."""
        if self._last is not None:
            self._gaps.append(why)
        self._last = None
        self._bad = why

    def mark(self) -> SpanStart:
        """The present, as the beginning of a span."""
        return SpanStart(self._last[0] if self._last else 0, self._total, len(self._gaps), self._bad)

    def since(self, mark: SpanStart) -> Span:
        """What came together between that mark and the last reading."""
        why = mark.why or (self._gaps[mark.gaps] if len(self._gaps) > mark.gaps else "")
        if why or self._last is None:
            return Span(None, 0.0, why or self._bad)
        seconds = (self._last[0] - mark.at_ns) / 1e9
        used = self._total - mark.total
        if used == 0 and self.zone.kind not in MAY_REST:
            return Span(None, seconds, f"the counter did not move in {seconds:.3g} s")
        return Span(used / 1e15, seconds, "")

    def _add_power(self, at_ns: int, value: int) -> None:
        if not 0 < value <= self._most * 10**6:
            self.miss(f"it reads {value / 1e6:g} W")
            return
        if self._last is not None:
            then, before = self._last
            if at_ns - then > MOST_SECONDS_BETWEEN_POWERS * 1e9:
                self._gap(f"no sample for {(at_ns - then) / 1e9:.0f} s")
            else:
                self._total += (before + value) * (at_ns - then) // 2
        self._last, self._bad = (at_ns, value), ""

    def _add_count(self, at_ns: int, value: int) -> None:
        if value < 0 or (self.zone.wrap_uj is not None and value > self.zone.wrap_uj):
            self.miss(f"it reads {value} µJ, beyond its range")
            return
        if self._last is None:
            self._moved_ns, self._bad = at_ns, ""
        else:
            step = self._step(at_ns, value)
            if isinstance(step, str):
                self._moved_ns = at_ns
                self._gap(step)
            else:
                self._total += step * 10**9
                self._watch_for_standing(at_ns, step)
        self._last = (at_ns, value)

    def _step(self, at_ns: int, value: int) -> int | str:
        """µJ since the last reading, or why that cannot be told."""
        assert self._last is not None
        then, before = self._last
        seconds = (at_ns - then) / 1e9
        wrap = self.zone.wrap_uj
        step = value - before
        if wrap is not None:
            if seconds * self._most * 1e6 >= wrap:
                return f"it was not read for {seconds:.3g} s, in which it may wrap more than once"
            step %= wrap
        if step < 0:
            return "it was set back"
        if step > (seconds + GRACE_SECONDS) * self._most * 1e6:
            return f"it was set back, or jumped: {step / 1e6:,.0f} J in {seconds:.3g} s"
        return step

    def _watch_for_standing(self, at_ns: int, step: int) -> None:
        if step or self.zone.kind in MAY_REST:
            self._moved_ns, self._bad = at_ns, ""
        elif at_ns - self._moved_ns >= STILL_SECONDS * 1e9 and not self._bad:
            self._bad = f"the counter stood still for {(at_ns - self._moved_ns) / 1e9:.3g} s"
            self._gaps.append(self._bad)

    def _gap(self, why: str) -> None:
        """A span that contains it is lost; the next may begin here."""
        self._gaps.append(why)
        self._bad = ""


def seconds_between_readings(zone: Zone) -> float:
    """How often a zone must be read at least: more than twice for each wrap at the most power that it can take."""
    if zone.wrap_uj is None:
        return zone.interval_seconds
    return max(0.001, min(zone.interval_seconds, zone.wrap_uj / (MOST_WATTS[zone.kind] * 1e6) / 3))
