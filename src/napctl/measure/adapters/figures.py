"""Numbers and units as load tools print them, read exactly; lines and JSON documents found in a tool's output."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from napctl.model.value import Value

NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?"
"""As a regular expression; neither a sign nor "nan": no figure of a load has one."""
US_PER = {
    "ns": Fraction(1, 1000),
    **dict.fromkeys(("us", "µs", "μs", "usec"), Fraction(1)),
    **dict.fromkeys(("ms", "msec"), Fraction(1000)),
    **dict.fromkeys(("s", "sec"), Fraction(10**6)),
    "m": Fraction(60 * 10**6),
    "h": Fraction(3600 * 10**6),
}
"""Microseconds per unit of time; m is a minute."""
MULTIPLES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
TIME = rf"{NUMBER}\s?(?:{'|'.join(sorted(US_PER, key=len, reverse=True))})"
"""A time with its unit, as a regular expression."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def exact(text: str) -> Fraction:
    """A number without rounding. Raises ValueError for what is none, nan and infinity included."""
    if not re.fullmatch(NUMBER, text, re.ASCII):
        raise ValueError(f"'{text}' is no number")
    return Fraction(text)


def number(text: str) -> float:
    """The nearest float. Raises ValueError."""
    return nearest(exact(text))


def nearest(value: Fraction) -> float:
    """The nearest float. Raises ValueError if it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number is too large") from None


def microseconds(text: str, unit: str = "") -> float:
    """A time in µs, from "46.00us", "3.1 ms", or a bare number with its `unit`. Raises ValueError."""
    split = re.fullmatch(rf"({NUMBER})\s?([a-zµμ]*)", text.strip(), re.ASCII | re.IGNORECASE)
    if not split or (split[2] and unit and split[2] != unit) or (split[2] or unit) not in US_PER:
        raise ValueError(f"'{text}{unit}' is no time with its unit")
    return nearest(exact(split[1]) * US_PER[split[2] or unit])


def plain(text: str, unit: str = "") -> float:
    """A count or a rate: "57471.27", "11.76k", or a number with its `unit`: k, M, G. Raises ValueError."""
    split = re.fullmatch(rf"({NUMBER})\s?([kKMG]?)", text.strip(), re.ASCII)
    if not split or (split[2] and unit and split[2] != unit) or (split[2] or unit) not in MULTIPLES:
        raise ValueError(f"'{text}{unit}' is no number")
    return nearest(exact(split[1]) * MULTIPLES[split[2] or unit])


class Output:
    """A tool's output line by line, without colours, outer spaces, and a last line that was cut off."""

    def __init__(self, text: str):
        *complete, _ = re.split(r"[\r\n]", COLOUR.sub("", text))  # \r: progress, written over itself
        self.lines = [line.strip() for line in complete]

    def all(self, pattern: str) -> list[re.Match[str]]:
        """The lines that are wholly as the pattern says."""
        wanted = re.compile(pattern, re.ASCII)
        return [found for line in self.lines if (found := wanted.fullmatch(line))]

    def maybe(self, pattern: str, what: str) -> re.Match[str] | None:
        """The one such line; None if there is none. Raises ValueError if there are several: more than one run."""
        found = self.all(pattern)
        if len(found) > 1:
            raise ValueError(f"'{what}' stands {len(found)} times in its output; one run is to be measured")
        return found[0] if found else None

    def one(self, pattern: str, what: str) -> re.Match[str]:
        """The one such line. Raises ValueError if there is none or several."""
        found = self.maybe(pattern, what)
        if found is None:
            raise ValueError(f"no '{what}' in its output")
        return found

    def unambiguous(self, pairs: Iterable[tuple[Fraction, float]]) -> dict[Fraction, float]:
        """Percentiles in percent and their values. Raises ValueError if one has two values."""
        known: dict[Fraction, float] = {}
        for percent, value in pairs:
            if known.setdefault(percent, value) != value:
                raise ValueError(f"two values of percentile {float(percent):g} in its output")
        return known


def histogram(cumulative: Iterable[tuple[float, int]]) -> tuple[tuple[float, int], ...]:
    """(latency in µs, requests of at most that) as (latency in µs, requests above the entry before).

    Raises ValueError if either falls.
    """
    entries: list[tuple[float, int]] = []
    below, floor_us = 0, 0.0
    for upper_us, count in cumulative:
        if count < below or upper_us < floor_us:
            raise ValueError("a cumulative distribution of latencies falls")
        if count > below:
            entries.append((upper_us, count - below))
        below, floor_us = count, upper_us
    return tuple(entries)


class Twice(Value, frozen=True):
    """The value of a key that stands more than once in a JSON object: nobody knows which one is meant."""

    key: str


def documents(text: str) -> list[Any]:
    """All JSON objects and arrays that begin on a line of their own; their numbers are int or Fraction.

    A key that stands more than once in an object has the value Twice.
    """
    decoder = json.JSONDecoder(parse_float=exact_json, parse_constant=refuse, object_pairs_hook=_once)
    found, end = [], 0
    for start in re.finditer(r"^[ \t]*(?=[{\[])", text, re.MULTILINE):
        if start.end() < end:
            continue  # inside the one before
        try:
            document, end = decoder.raw_decode(text, start.end())
        except (ValueError, RecursionError):
            continue
        found.append(document)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    times = Counter(key for key, _ in pairs)
    return {key: value if times[key] == 1 else Twice(key) for key, value in pairs}


def exact_json(text: str) -> Fraction:
    """A JSON number with a point or an exponent. Raises ValueError for an absurd one."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    return sign * exact(digits)


def refuse(text: str) -> None:
    """For NaN and Infinity, which are no JSON. Raises ValueError."""
    raise ValueError(f"'{text}' is no number")


def told(value: object) -> Fraction | None:
    """A figure of a JSON document; None if it is no number, or negative. Raises ValueError for one that is Twice."""
    if isinstance(value, Twice):
        raise ValueError(f"'{value.key}' stands more than once in one object of its output")
    if isinstance(value, bool) or not isinstance(value, int | Fraction) or value < 0:
        return None
    return Fraction(value)
