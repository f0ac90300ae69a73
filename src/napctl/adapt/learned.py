"""What each way cost, and how long packets waited under it, by octave of load: kept, and forgotten slowly."""

from math import exp, floor, isfinite, log, log2, sqrt

from msgspec.structs import replace

from napctl.adapt.ways import INTERRUPTS, Way, WayWindow
from napctl.model.value import Value

__all__ = [
    "LEAST_KNOWN",
    "Learned",
    "LearnedWay",
    "Pool",
    "learned_before",
    "load_of",
    "octave_of",
    "pooled",
]


VERSION = 1
"""Of what is kept. Another one is not read, but learned anew."""
HALF_LIFE_SECONDS = 3600.0
"""Of traffic, after which what was learned counts half: idle hours forget nothing. An hour is long against a trial,
so that trials stay rare, and short against what changes a server's work: content, clients, the time of day."""
MOST_WINDOWS = 120.0
"""A cell weighs at most as much: the way in force, seen all the time, is known by its last minute or two."""
FULL_SAMPLES = 100
"""A p99 of fewer samples is nearly their greatest, whose noise is large: it counts in proportion."""
FEWEST_SAMPLES = 20
"""And below that not at all."""
FEWEST_PACKETS = 50
"""In a window, below which CPU time for each packet is mostly that of everything else: such a server idles."""
BEYOND = 0.25
"""Octaves by which a load must leave its octave before it counts as in another: one that hovers stays."""
LIGHT = 0.25
"""CPUs for each NAPI instance, below which a load is light: hardly a packet waits for another's work."""
FORGOTTEN = 0.01
"""Windows that weigh on a cell, below which it is not kept any more."""
LEAST_KNOWN = 1.5
"""Windows that must weigh on what is relied upon: three of a trial do so for a half-life."""


class Pool(Value, frozen=True, kw_only=True):
    """Logarithms of one quantity over windows: weighted mean and variance. Ratios matter, and tails are long."""

    weight: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def with_one(self, value: float, weight: float = 1.0, most: float = float("inf")) -> "Pool":
        """And one more; those before weigh no more than leaves `most` in all, so what is old fades."""
        before = min(self.weight, most - weight)
        if weight <= 0:
            return self
        all_of_it, apart = before + weight, value - self.mean
        return Pool(
            weight=all_of_it,
            mean=self.mean + apart * weight / all_of_it,
            variance=(before / all_of_it) * (self.variance + apart * apart * weight / all_of_it),
        )

    def spread(self, prior: float) -> float:
        """Standard deviation of a window. Few windows do not tell it: `prior` weighs as much as six."""
        return sqrt((self.weight * self.variance + 6 * prior * prior) / (self.weight + 6))

    @property
    def typical(self) -> float:
        """The geometric mean."""
        return exp(self.mean)


class LearnedWay(Value, frozen=True, kw_only=True):
    """One way at one octave of load."""

    octave: int
    way: Way
    at: float
    """Seconds of traffic when it was last seen."""
    cost: Pool = Pool()
    """CPU seconds for each packet."""
    p99: Pool = Pool()
    """Of the latency, ns."""

    def with_one(self, seen: WayWindow, most: float = MOST_WINDOWS) -> "LearnedWay":
        """And one window more."""
        assert seen.packets, "load_of() tells windows that count"
        assert seen.cpu_seconds is not None
        cost, p99 = self.cost.with_one(log(max(seen.cpu_seconds, 1e-9) / seen.packets), 1.0, most), self.p99
        if seen.p99_ns is not None and isfinite(seen.p99_ns) and seen.samples >= FEWEST_SAMPLES:
            p99 = p99.with_one(log(max(seen.p99_ns, 1.0)), min(1.0, seen.samples / FULL_SAMPLES), most)
        return replace(self, cost=cost, p99=p99)


class Learned(Value, frozen=True, kw_only=True):
    """All that is known of one server."""

    version: int = VERSION
    identity: str
    """Of the server, its kernel and its driver. Another identity has another Learned."""
    traffic_seconds: float = 0.0
    """In which there was something to learn from."""
    until_poll_only: bool = False
    """What `p99` is of; see WayWindow."""
    cells: tuple[LearnedWay, ...] = ()

    def with_one(self, octave: int, seen: WayWindow) -> "Learned":
        """And one window more. Percentiles of another kind than before put those before away."""
        now, cells = self.traffic_seconds + seen.rested + seen.seconds, self.cells
        kind = self.until_poll_only if seen.p99_ns is None else seen.until_poll_only
        if kind != self.until_poll_only:
            cells = tuple(replace(each, p99=Pool()) for each in cells)
        before = next((each for each in cells if (each.octave, each.way) == (octave, seen.way)), None)
        cell = _faded(before, now) if before else LearnedWay(octave=octave, way=seen.way, at=now)
        rest = (each for each in cells if each is not before)
        return replace(self, traffic_seconds=now, until_poll_only=kind, cells=(*rest, cell.with_one(seen)))

    def cell(self, octave: int, way: Way) -> LearnedWay:
        """As it counts today; without weight, if nothing is known."""
        for each in self.cells:
            if (each.octave, each.way) == (octave, way):
                return _faded(each, self.traffic_seconds)
        return LearnedWay(octave=octave, way=way, at=self.traffic_seconds)

    def near(self, octave: int, way: Way) -> LearnedWay:
        """The same, or else of the next octave, the one below first: queues are no longer there."""
        cells = (self.cell(each, way) for each in (octave, octave - 1, octave + 1))
        known = (each for each in cells if each.p99.weight >= LEAST_KNOWN)
        return next(known, self.cell(octave, way))

    @property
    def own_p99_ns(self) -> float:
        """What the server needs by itself: the least p99 that plain interrupts had while the load was light.

        There no packet waits for a timer or for others, nor the server for a CPU: what is left is waking up and the
        machine's own noise, which no way of taking packets changes. 0 until that was seen: then all latency counts.
        """
        if self.until_poll_only:
            return 0.0
        plain = (each for each in self.cells if each.way == INTERRUPTS)
        light = (each for each in plain if each.cost.mean + log(2) * (each.octave + 0.5) < log(LIGHT))
        known = (each.p99 for each in light if each.p99.weight * _left(each, self.traffic_seconds) >= LEAST_KNOWN)
        return min((each.typical for each in known), default=0.0)


def learned_before(kept: Learned | None, identity: str) -> Learned:
    """What was kept, if it is of the same server, kernel and driver, and readable; else nothing."""
    if kept is None or (kept.version, kept.identity) != (VERSION, identity):
        return Learned(identity=identity)
    left = (each for each in kept.cells if each.cost.weight * _left(each, kept.traffic_seconds) >= FORGOTTEN)
    return replace(kept, cells=tuple(left))


def load_of(seen: WayWindow) -> float | None:
    """Packets a second for each NAPI instance. None: a gap, or so few packets that the server idles."""
    if seen.packets is None or seen.cpu_seconds is None or not seen.seconds > 0 or seen.packets < FEWEST_PACKETS:
        return None
    return seen.packets / seen.seconds / max(1, seen.instances)


def octave_of(load: float, before: int | None) -> int:
    """Loads from 2**octave to twice that; the one before, while the load is hardly outside."""
    place = log2(load)
    if before is not None and before - BEYOND <= place < before + 1 + BEYOND:
        return before
    return floor(place)


def pooled(windows: tuple[WayWindow, ...], octave: int, way: Way) -> LearnedWay:
    """Those alone, as a cell."""
    cell = LearnedWay(octave=octave, way=way, at=0.0)
    for seen in windows:
        cell = cell.with_one(seen, float("inf"))
    return cell


def _faded(cell: LearnedWay, now: float) -> LearnedWay:
    left = _left(cell, now)
    cost, p99 = (replace(each, weight=each.weight * left) for each in (cell.cost, cell.p99))
    return replace(cell, at=now, cost=cost, p99=p99)


def _left(cell: LearnedWay, now: float) -> float:
    """The share of a cell's weight that time has left."""
    return float(0.5 ** ((now - cell.at) / HALF_LIFE_SECONDS))
