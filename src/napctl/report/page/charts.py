"""The charts of a report, as inline SVG: intervals always, colours never alone, every data point reachable."""

from collections.abc import Mapping, Sequence
from math import log

from napctl.model.experiment import Estimate
from napctl.model.metrics import Metric
from napctl.model.units import figure
from napctl.model.value import Value
from napctl.report.page.svg import (
    Scale,
    SeriesStyle,
    dashes,
    level_axis,
    marker,
    n,
    picture,
    reachable,
    scale,
    short,
    text,
    tick_text,
)
from napctl.report.table import heading, interval, pareto

__all__ = [
    "BINS",
    "Level",
    "Series",
    "against_load",
    "binned",
    "front_of",
    "legend",
    "plane",
    "poll_bars",
    "ratio_line",
    "share_bar",
]


WIDTH, HEIGHT = 360.0, 288.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 354.0, 42.0, 250.0
LETTER = 6.6
"""Width of a letter, about."""
BINS = ("0", "1", "2", "3", "4–7", "8–15", "16–31", "32–63", "64+")
EDGES = (0, 1, 2, 3, 7, 15, 31, 63)
"""Packets found by a poll: the last of each bin. 64 is the usual budget: there more packets were waiting, perhaps."""


class Series(Value, frozen=True, kw_only=True):
    """One treatment, of one run."""

    label: str
    treatment: str
    run: int
    look: SeriesStyle


class Level(Value, frozen=True, kw_only=True):
    """An estimate in the unit that is shown."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, estimate: Estimate, metric: Metric) -> "Level":
        """In the metric's unit."""
        low, median, high = (each * metric.factor for each in (estimate.low, estimate.median, estimate.high))
        return cls(median=median, low=low, high=high)

    def words(self, unit: str) -> str:
        """For a tooltip."""
        return f"{figure(self.median)} {unit} ({interval(self.low, self.high)})".replace("  ", " ")


def legend(look: SeriesStyle) -> str:
    """A sample of a series' line and sign."""
    line = f'<path class="line" d="M2 8H38"{dashes(look)}/>'
    return (
        f'<svg class="sample c{look.colour}" viewBox="0 0 40 16" aria-hidden="true">{line}{marker(look, 20, 8)}</svg>'
    )


def against_load(label: str, metric: Metric, loads: Sequence[str], series: Mapping[Series, Mapping[str, Level]]) -> str:
    """Medians with their intervals: one line a series, loads at even distances, side by side so that none is hidden."""
    levels = [level for each in series.values() for level in each.values()]
    slot = (RIGHT - LEFT) / max(1, len(loads))
    slanted = max(map(len, loads), default=0) * LETTER > slot - 4
    bottom = BOTTOM - 30 if slanted else BOTTOM
    axis = scale([v for each in levels for v in (each.low, each.high, each.median)], bottom, TOP, zero=True)
    middle = {load: LEFT + slot * (number + 0.5) for number, load in enumerate(loads)}
    parts = [
        level_axis(axis, LEFT, RIGHT, heading(metric)),
        *(_name(middle[load], bottom, load, slanted) for load in loads),
    ]
    parts.append(f'<path class="axis" d="M{n(LEFT)} {n(bottom)}H{n(RIGHT)}"/>')
    parts.append(text((LEFT + RIGHT) / 2, HEIGHT - 4, "load", css="unit"))
    apart = min(9.0, slot * 0.7 / max(1, len(series)))
    lines, points = [], []
    for number, (each, by_load) in enumerate(series.items()):
        shift = (number - (len(series) - 1) / 2) * apart
        there = [(load, middle[load] + shift, by_load[load]) for load in loads if load in by_load]
        way = "L".join(f"{n(x)} {n(axis(level.median))}" for _, x, level in there)
        if len(there) > 1:
            lines.append(f'<path class="line c{each.look.colour}" d="M{way}"{dashes(each.look)}/>')
        for load, x, level in there:
            shapes = _upright(x, axis(level.low), axis(level.high)) + marker(each.look, x, axis(level.median))
            shapes += _touch(x, axis(level.median))
            points.append(reachable(shapes, f"c{each.look.colour}", f"{each.label}, {load}", level.words(metric.unit)))
    return picture(WIDTH, HEIGHT, label, "".join(parts + lines + points))


def plane(label: str, across: Metric, up: Metric, series: Mapping[Series, tuple[Level, Level]]) -> str:
    """The trade-off of two metrics of which less is better, one point a series, and the front of those unbeaten."""
    xs = [v for x, _ in series.values() for v in (x.low, x.high, x.median)]
    ys = [v for _, y in series.values() for v in (y.low, y.high, y.median)]
    horizontal, vertical = scale(xs, LEFT, RIGHT, zero=False), scale(ys, BOTTOM, TOP, zero=False)
    parts = [level_axis(vertical, LEFT, RIGHT, heading(up))]
    for tick in _thinned(horizontal):
        at = horizontal(tick)
        parts.append(f'<path class="grid" d="M{n(at)} {n(TOP)}V{n(BOTTOM)}"/>{text(at, BOTTOM + 16, tick_text(tick))}')
    words = heading(across) + (" (logarithmic)" if horizontal.log else "")
    parts.append(text((LEFT + RIGHT) / 2, HEIGHT - 4, words, css="unit"))
    places = {each.label: (horizontal(x.median), vertical(y.median)) for each, (x, y) in series.items()}
    front = front_of(series)
    steps = [places[name] for name in front]
    if steps:
        way = f"M{n(steps[0][0])} {n(TOP)}V{n(steps[0][1])}" + "".join(f"H{n(x)}V{n(y)}" for x, y in steps[1:])
        parts.append(f'<path class="front" d="{way}H{n(RIGHT)}"/>')
    for each, (x, y) in series.items():
        at, level = places[each.label]
        ring = f'<circle class="ring" cx="{n(at)}" cy="{n(level)}" r="10"/>' if each.label in front else ""
        shapes = ring + _upright(at, vertical(y.low), vertical(y.high))
        shapes += (
            _level(horizontal(x.low), horizontal(x.high), level) + marker(each.look, at, level) + _touch(at, level)
        )
        figures = f"{x.words(across.unit)}, {up.title} {y.words(up.unit)}"
        on = " (on the front)" if each.label in front else ""
        parts.append(reachable(shapes, f"c{each.look.colour}", each.label + on, figures))
    return picture(WIDTH, HEIGHT, label, "".join(parts))


def front_of(series: Mapping[Series, tuple[Level, Level]]) -> list[str]:
    """Labels of the series that none beats in both, by their medians."""
    return pareto({each.label: (x.median, y.median) for each, (x, y) in series.items()})


def binned(polls: Sequence[float]) -> list[float]:
    """Polls by packets found, as bins of BINS."""
    bins, start = [], 0
    for edge in EDGES:
        bins.append(sum(polls[start : edge + 1]))
        start = edge + 1
    return [*bins, sum(polls[start:])]


def poll_bars(label: str, before: tuple[Series, Sequence[float]], after: tuple[Series, Sequence[float]]) -> str:
    """Polls per second by packets found: of the reference hollow, of the treatment filled."""
    width, height, left, right, top, bottom = WIDTH, 238.0, LEFT, RIGHT, TOP, 200.0
    axis = scale([*before[1], *after[1], 0.0], bottom, top, zero=True)
    slot = (right - left) / len(BINS)
    parts = [level_axis(axis, left, right, "polls/s")]
    for number, name in enumerate(BINS):
        x = left + slot * number
        bars = ""
        for place, (series, bins) in enumerate((before, after)):
            css = f"bar c{series.look.colour}" + (" hollow" if place == 0 else "")
            level, at = axis(bins[number]), x + slot * (0.12 + 0.38 * place)
            bars += f'<path class="{css}" d="M{n(at)} {n(bottom)}V{n(level)}h{n(slot * 0.38)}V{n(bottom)}"/>'
        bars += f'<path class="touch" d="M{n(x)} {n(top)}h{n(slot)}V{n(bottom)}h{n(-slot)}Z"/>'
        words = ", ".join(f"{short(series.label)} {figure(bins[number])}/s" for series, bins in (before, after))
        parts.append(reachable(bars, "", f"{name} packet{'s' * (name != '1')} found", words))
        parts.append(text(x + slot / 2, bottom + 15, name, css="bin"))
    parts.append(f'<path class="axis" d="M{n(left)} {n(bottom)}H{n(right)}"/>')
    parts.append(text((left + right) / 2, height - 4, "packets found by the poll", css="unit"))
    return picture(width, height, label, "".join(parts))


def share_bar(value: float, least: float, most: float, css: str) -> str:
    """A bar within a table, between the least and the most of its column, as wide as there is room."""
    axis = Scale(low=min(0.0, least), high=max(most, 0.0) or 1.0, start=1, end=159)
    zero, end = axis(0), axis(value)
    bar = f'<path class="bar {css}" d="M{n(zero)} 1H{n(end)}V9H{n(zero)}Z"/><path class="axis" d="M{n(zero)} 0V10"/>'
    return f'<svg class="wide" viewBox="0 0 160 10" preserveAspectRatio="none" aria-hidden="true">{bar}</svg>'


def ratio_line(ratio: float, low: float, high: float, reach: float, css: str) -> str:
    """A ratio with its interval about 1, on a logarithmic axis from 1/reach to reach; arrows where it goes beyond."""
    axis = Scale(low=-log(reach), high=log(reach), start=8, end=152)

    def at(value: float) -> float:
        return axis(log(value)) if value > 0 else axis.start

    ends = "".join(
        f'<path class="mark" d="M{n(x)} 3L{n(x + away)} 7L{n(x)} 11Z"/>'
        for x, away, beyond in ((8, -7, low * reach < 0.999), (152, 7, high > reach * 1.001))
        if beyond
    )
    span = f'<path class="error" d="M{n(at(low))} 7H{n(at(high))}"/>'
    dot = f'<path class="mark" d="M{n(at(ratio) - 3.5)} 3.5h7v7h-7Z"/>'
    inside = f'<path class="axis" d="M80 0V14"/>{span}{ends}{dot}'
    return f'<svg class="inrow {css}" viewBox="0 0 160 14" aria-hidden="true">{inside}</svg>'


def _upright(x: float, low: float, high: float) -> str:
    return f'<path class="error" d="M{n(x)} {n(low)}V{n(high)}M{n(x - 3)} {n(low)}h6M{n(x - 3)} {n(high)}h6"/>'


def _level(low: float, high: float, y: float) -> str:
    return f'<path class="error" d="M{n(low)} {n(y)}H{n(high)}M{n(low)} {n(y - 3)}v6M{n(high)} {n(y - 3)}v6"/>'


def _touch(x: float, y: float) -> str:
    """Room for a finger; the focus is shown by it, too."""
    return f'<circle class="touch" cx="{n(x)}" cy="{n(y)}" r="12"/>'


def _name(x: float, bottom: float, load: str, slanted: bool) -> str:
    if not slanted:
        return text(x, bottom + 17, load)
    turned = f'<g transform="translate({n(x + 4)} {n(bottom + 14)}) rotate(-28)">'
    return f"{turned}{text(0, 0, short(load, 12), css='small', anchor='end')}</g>"


def _thinned(axis: Scale) -> list[float]:
    """Ticks whose values have room beside each other."""
    ticks = axis.ticks()
    wide = max((len(tick_text(tick)) for tick in ticks), default=1) * LETTER + 8
    room = max(1, int((RIGHT - LEFT) / wide))
    return ticks[:: -(-len(ticks) // room)]
