"""Worlds to adapt to: a server whose packets cost and wait by load and way, and the loop that shows it to `decide`."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log, sqrt
from random import Random

from msgspec.structs import replace

from napctl.adapt.controller import SETTLE_SECONDS, WINDOW_SECONDS, Decision, decide
from napctl.adapt.controller_state import State, start
from napctl.adapt.learned import Learned
from napctl.adapt.pace import WindowSpan, followed, has_ended, next_span
from napctl.adapt.preference import LatencyGoal, Prefer
from napctl.adapt.ways import INTERRUPTS, Way, WayWindow, ways_between

MEMCACHED_ON_TWO_CORES = {
    "interrupts": {5_000: (104, 11), 20_000: (96, 33), 60_000: (1_000, 76), 100_000: (3_700, 98)},
    "20us": {5_000: (100, 53), 20_000: (141, 70), 60_000: (475, 93), 100_000: (2_100, 99)},
    "50us": {5_000: (123, 36), 20_000: (127, 56), 60_000: (197, 85), 100_000: (614, 98)},
    "200us": {5_000: (259, 19), 20_000: (266, 34), 60_000: (373, 66), 100_000: (913, 84)},
}
"""memcached -t 1 on two cores, one queue, Linux 6.18: p99 in µs and CPU in % by requests/s, under interrupts and under
suspension with a timer. Measured in the lab, five interleaved rounds."""
MEMCACHED_ON_A_QUIET_MACHINE = {
    "interrupts": {5_000: (35, 11), 60_000: (150, 63), 100_000: (384, 88)},
    "20us": {5_000: (71, 56), 60_000: (122, 94), 100_000: (403, 99)},
    "50us": {5_000: (100, 37), 60_000: (126, 84), 100_000: (147, 97)},
    "200us": {5_000: (244, 20), 60_000: (300, 66), 100_000: (347, 81)},
}
"""The same as p99 is at the server, on a machine that did nothing else: docs/adapt.md."""
WAYS = ways_between(20_000, 200_000)

World = Callable[[Way, float, float], tuple[float, float]]
"""Of a way, packets a second and the time: CPU seconds for each packet, and p99 in ns."""


def memcached(way: Way, load: float, at: float) -> tuple[float, float]:
    """The table, at the nearest of its loads; 100us between its neighbours."""
    return _of_table(MEMCACHED_ON_TWO_CORES, way, load)


def memcached_in_quiet(way: Way, load: float, at: float) -> tuple[float, float]:
    """The same of the other table."""
    return _of_table(MEMCACHED_ON_A_QUIET_MACHINE, way, load)


def _of_table(table: Mapping[str, Mapping[int, tuple[float, float]]], way: Way, load: float) -> tuple[float, float]:
    if str(way) == "100us":
        pairs = [_of_table(table, each, load) for each in (WAYS[2], WAYS[4])]
        cost, p99 = (sqrt(one * other) for one, other in zip(*pairs, strict=True))
        return cost, p99
    row = table[str(way)]
    nearest = min(row, key=lambda each: abs(each - load))
    p99_us, cpu = row[nearest]
    return cpu / 100 / nearest, p99_us * 1e3


@dataclass(frozen=True)
class Noise:
    """Spread (of the logarithm) of a window's figures, and how many samples a percentile has at most; and the share of
    windows in which the machine stalls, so that the p99 is up to a hundred times as high."""

    cost: float = 0.05
    p99: float = 0.10
    samples: int = 400
    stalls: float = 0.0


@dataclass(frozen=True)
class Window:
    """One of a course."""

    seen: WayWindow
    decision: Decision
    load: float
    """Packets a second at its end."""
    since_step: float
    """Seconds from the last step of the load to its end."""


@dataclass
class Course:
    """A controller in a world."""

    goal: LatencyGoal
    state: State
    random: Random
    noise: Noise = Noise()
    at: float = 1_000.0
    rate: float = 0.0
    """Packets a second at the last glance."""
    span: WindowSpan | None = None
    """Of the window at hand."""
    windows: list[Window] = field(default_factory=list)

    def run(self, world: World, steps: Sequence[tuple[float, float]]) -> list[Window]:
        """Each step: seconds, and packets a second meanwhile. Gives the windows of this run, as long as napctl's."""
        begun, first = self.at, len(self.windows)
        edges = [(begun + sum(seconds for seconds, _ in steps[:index]), steps[index][1]) for index in range(len(steps))]
        over = begun + sum(seconds for seconds, _ in steps)
        while window := self._window(edges, over):
            began, end = window
            seen = self._seen(world, self.state.way, _parts(edges, began, end), end)
            if self.span:
                seen = replace(seen, rested=self.span.rested)
            decision = decide(self.state, seen, self.goal)
            last = max(edge for edge, _ in edges if edge < end)
            self.windows.append(Window(seen, decision, _parts(edges, began, end)[-1][1], end - last))
            self.state = decision.state
            self.at = end + (SETTLE_SECONDS if decision.kind else 0.0)
            self.span = WindowSpan(self.at) if decision.kind else followed(end, decision.state, self.goal)
        return self.windows[first:]

    def _window(self, edges: Sequence[tuple[float, float]], over: float) -> tuple[float, float] | None:
        """The next one, from its begin to its end: found by glances at the packets, as attach/adapting.py does."""
        while self.at + WINDOW_SECONDS <= over:
            parts = _parts(edges, self.at, self.at + WINDOW_SECONDS)
            before, self.rate = self.rate, sum(seconds * load for seconds, load in parts) / WINDOW_SECONDS
            self.at += WINDOW_SECONDS
            span = next_span(self.span, self.at, before, self.rate, tries=self.state.trial is not None)
            if span is not None and span == self.span and has_ended(span, self.at):
                return span.began, self.at
            self.span = span
        return None

    def _seen(self, world: World, way: Way, parts: Sequence[tuple[float, float]], end: float) -> WayWindow:
        figures = [(seconds, load, *world(way, load, end)) for seconds, load in parts]
        packets = sum(seconds * load for seconds, load, _, _ in figures)
        cpu = sum(seconds * load * cost for seconds, load, cost, _ in figures)
        p99 = max(p99 for seconds, load, _, p99 in figures if seconds * load >= 0.01 * packets)
        if self.noise.stalls and self.random.random() < self.noise.stalls:
            p99 *= exp(self.random.uniform(log(2), log(100)))
        return WayWindow(
            way=way, seconds=sum(seconds for seconds, _ in parts), at=end, packets=round(packets),
            cpu_seconds=cpu * exp(self.random.gauss(0, self.noise.cost)),
            p99_ns=p99 * exp(self.random.gauss(0, self.noise.p99)), p50_ns=p99 / 3,
            samples=min(self.noise.samples, round(packets)),
        )  # fmt: skip


def _parts(edges: Sequence[tuple[float, float]], begin: float, end: float) -> list[tuple[float, float]]:
    """Seconds and load, of the steps that lie between."""
    return [
        (min(end, later) - max(begin, edge), load)
        for (edge, load), (later, _) in zip(edges, [*edges[1:], (end, 0.0)], strict=True)
        if edge < end and later > begin
    ]


def course(
    budget_us: float, prefer: Prefer = "cpu", ways: Sequence[Way] = WAYS, way: Way = INTERRUPTS, seed: int = 0,
    noise: Noise = Noise(),
) -> Course:  # fmt: skip
    """One that has learned nothing yet."""
    goal = LatencyGoal(ways=tuple(ways), budget_ns=round(budget_us * 1e3), prefer=prefer)
    return Course(goal=goal, state=start(way, Learned(identity="a world")), random=Random(seed), noise=noise)


def most_changes(windows: Sequence[Window], seconds: float) -> int:
    """The most within any stretch of so many seconds."""
    times = [each.seen.at for each in windows if each.decision.kind]
    return max((bisect_left(times, begun + seconds) - index for index, begun in enumerate(times)), default=0)


def trial_seconds(windows: Sequence[Window], seconds: float) -> float:
    """The most that went into trials of what might be better, within any stretch of so many seconds."""
    spent = [(0.0, 0.0)]
    begun = None
    for each in windows:
        trial = each.decision.state.trial
        if begun is not None:
            spent.append((each.seen.at, spent[-1][1] + each.seen.at - begun))
        begun = each.seen.at if trial and trial.kind == "trial" else None
    times = [at for at, _ in spent]
    return max(total - spent[max(0, bisect_left(times, at - seconds) - 1)][1] for at, total in spent)
