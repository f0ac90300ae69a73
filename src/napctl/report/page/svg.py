"""What charts are drawn with: scales with their ticks, markers, and data points that a keyboard can reach.

Colours are classes (`c0` … `c7`, in style.css): light and dark pages have different ones.
"""

from html import escape
from math import ceil, floor, log10

from napctl.model.units import figure
from napctl.model.value import Value

__all__ = [
    "Scale",
    "SeriesStyle",
    "dashes",
    "level_axis",
    "marker",
    "n",
    "picture",
    "reachable",
    "scale",
    "short",
    "text",
    "tick_text",
]


COLOURS = 8
MARKERS = (
    "M-4.6 0A4.6 4.6 0 1 0 4.6 0A4.6 4.6 0 1 0 -4.6 0Z",  # circle
    "M-4.2 -4.2H4.2V4.2H-4.2Z",  # square
    "M0 -5.4L5.2 4H-5.2Z",  # triangle
    "M0 -6L5.4 0L0 6L-5.4 0Z",  # diamond
    "M0 5.4L5.2 -4H-5.2Z",  # triangle that points down
    "M-5 -2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z",  # cross
    "M0 -5.6L5.4 -1.7L3.3 4.6H-3.3L-5.4 -1.7Z",  # pentagon
    "M0 -6L1.6 -1.8L6 0L1.6 1.8L0 6L-1.6 1.8L-6 0L-1.6 -1.8Z",  # star
)
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "6 3 2 3 2 3", "1 4")
RANGE_OF_LOG = 20
"""A larger range of values than that is shown on a logarithmic scale, if all are positive."""
SMALLEST, LARGEST = 1e-12, 1e15
LONGEST = 22
"""Letters of a name within a chart; the whole name is in the legend, the point's title and the table."""


class SeriesStyle(Value, frozen=True, kw_only=True):
    """How a series is told from the others: never by colour alone."""

    colour: int
    marker: int
    dash: int
    hollow: bool = False

    @classmethod
    def of(cls, number: int, *, variant: int | None = None) -> "SeriesStyle":
        """Of the series of that number; variants of one share colour and marker, and differ in dash and filling."""
        marker = (number + number // COLOURS) % len(MARKERS)
        if variant is None:
            return cls(colour=number % COLOURS, marker=marker, dash=marker)
        return cls(colour=number % COLOURS, marker=marker, dash=variant % len(DASHES), hollow=variant % 2 == 0)


class Scale(Value, frozen=True, kw_only=True):
    """From values to a coordinate of the picture."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate; what lies outside is put at the edge."""
        low, high = (log10(self.low), log10(self.high)) if self.log else (self.low, self.high)
        at = log10(max(value, self.low)) if self.log else value
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within it."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def scale(values: list[float], start: float, end: float, *, zero: bool) -> Scale:
    """One that holds these values, between round ones; from 0 on if asked for and not logarithmic."""
    tame = [_tame(value) for value in values]
    least, most = min(tame, default=0.0), max(tame, default=1.0)
    if least > 0 and most / least > RANGE_OF_LOG:
        return Scale(low=_round_down(least), high=_round_up(most), start=start, end=end, log=True)
    if zero:
        least, most = min(0.0, least), max(0.0, most)
    else:
        margin = (most - least) * 0.08 or abs(most) * 0.1
        least, most = max(0.0, least - margin) if least >= 0 else least - margin, most + margin
    if most - least <= abs(most) * 1e-9:
        least, most = (0.0, most or 1.0) if most >= 0 else (least, 0.0)
    step = _step(least, most)
    return Scale(low=floor(least / step) * step, high=ceil(most / step) * step, start=start, end=end)


def _tame(value: float) -> float:
    """Within what can be drawn: no machine has such figures, but a file may."""
    return 0.0 if abs(value) < SMALLEST else min(LARGEST, max(-LARGEST, value))


def _step(least: float, most: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are four to nine ticks."""
    rough = (most - least) / 5
    power: float = 10.0 ** floor(log10(rough))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)


def _ticks(low: float, high: float) -> list[float]:
    step = _step(low, high)
    return [round(low / step) * step + number * step for number in range(round((high - low) / step) + 1)]


def _round_down(value: float) -> float:
    power: float = 10.0 ** floor(log10(value))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value * 1.0000001)


def _round_up(value: float) -> float:
    power: float = 10.0 ** floor(log10(value))
    return min(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.9999999)


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade; of many decades their beginnings only."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 4 else (1,)
    every = max(1, len(decades) // 6)
    ticks = [factor * 10.0**decade for decade in decades[::every] for factor in factors]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def short(text: str, most: int = LONGEST) -> str:
    """A name that may be longer than a chart is wide."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def n(coordinate: float) -> str:
    """A coordinate as text."""
    return f"{coordinate:.1f}".removesuffix(".0")


def text(x: float, y: float, words: str, *, css: str = "", anchor: str = "middle") -> str:
    """A text at a place."""
    return f'<text class="{css}" x="{n(x)}" y="{n(y)}" text-anchor="{anchor}">{escape(words)}</text>'


def marker(look: SeriesStyle, x: float, y: float) -> str:
    """The sign of a series."""
    filling = " hollow" if look.hollow else ""
    return f'<path class="mark{filling}" transform="translate({n(x)} {n(y)})" d="{MARKERS[look.marker]}"/>'


def dashes(look: SeriesStyle) -> str:
    """The attribute for its line."""
    return f' stroke-dasharray="{DASHES[look.dash]}"' if DASHES[look.dash] else ""


def reachable(shapes: str, css: str, head: str, words: str) -> str:
    """Shapes as a data point: by keyboard, by pointer and by screen reader. What it says stands on top of the chart."""
    whole = escape(f"{head}: {words}")
    tip = text(4, 12, short(head, 46), css="tip head", anchor="start")
    tip += text(4, 27, short(words, 52), css="tip", anchor="start")
    return (
        f'<g class="point {css}" tabindex="0" role="img" aria-label="{whole}"><title>{whole}</title>{shapes}{tip}</g>'
    )


def picture(width: float, height: float, label: str, inside: str) -> str:
    """The whole chart."""
    return (
        f'<svg class="chart" viewBox="0 0 {n(width)} {n(height)}" role="group" aria-label="{escape(label)}">'
        f"{inside}</svg>"
    )


def level_axis(axis: Scale, left: float, right: float, unit: str) -> str:
    """Lines across, with their values on the left; the unit above."""
    lines = [
        f'<path class="grid" d="M{n(left)} {n(axis(tick))}H{n(right)}"/>'
        + text(left - 6, axis(tick) + 4, tick_text(tick), anchor="end")
        for tick in axis.ticks()
    ]
    words = f"{unit} (logarithmic)" if axis.log else unit
    return "".join(lines) + text(4, min(axis.start, axis.end) - 15, words, css="unit above", anchor="start")


def tick_text(value: float) -> str:
    """A round value, as short as it can be."""
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value == round(value) else figure(value).rstrip("0").rstrip(".")
