"""Numbers and units as load tools print them; lines and JSON documents found in a tool's output."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from math import isinf
from typing import Any

from napctl.model.value import Value

__all__ = [
    "COLOUR",
    "MULTIPLES",
    "NUMBER",
    "TIME",
    "US_PER",
    "Output",
    "Twice",
    "documents",
    "finite",
    "histogram",
    "microseconds",
    "number",
    "plain",
    "told",
]


NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?"
"""As a regular expression; neither a sign nor "nan": no figure of a load has one."""
US_PER = {
    "ns": 0.001,
    **dict.fromkeys(("us", "µs", "μs", "usec"), 1.0),
    **dict.fromkeys(("ms", "msec"), 1e3),
    **dict.fromkeys(("s", "sec"), 1e6),
    "m": 60e6,
    "h": 3600e6,
}
"""Microseconds per unit of time; m is a minute."""
MULTIPLES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
TIME = rf"{NUMBER}\s?(?:{'|'.join(sorted(US_PER, key=len, reverse=True))})"
"""A time with its unit, as a regular expression."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def number(text: str, times: float = 1) -> float:
    """So many times a number. Raises ValueError for what is none, nan and infinity included, and for one too large."""
    if not re.fullmatch(NUMBER, text, re.ASCII):
        raise ValueError(f"'{text}' is no number")
    return finite(float(text) * times)


def finite(value: float) -> float:
    """The same. Raises ValueError if it was too large for a float."""
    if isinf(value):
        raise ValueError("a number is too large")
    return value


def microseconds(text: str, unit: str = "") -> float:
    """A time in µs, from "46.00us", "3.1 ms", or a bare number with its `unit`. Raises ValueError."""
    split = re.fullmatch(rf"({NUMBER})\s?([a-zµμ]*)", text.strip(), re.ASCII | re.IGNORECASE)
    if not split or (split[2] and unit and split[2] != unit) or (split[2] or unit) not in US_PER:
        raise ValueError(f"'{text}{unit}' is no time with its unit")
    return number(split[1], US_PER[split[2] or unit])


def plain(text: str, unit: str = "") -> float:
    """A count or a rate: "57471.27", "11.76k", or a number with its `unit`: k, M, G. Raises ValueError."""
    split = re.fullmatch(rf"({NUMBER})\s?([kKMG]?)", text.strip(), re.ASCII)
    if not split or (split[2] and unit and split[2] != unit) or (split[2] or unit) not in MULTIPLES:
        raise ValueError(f"'{text}{unit}' is no number")
    return number(split[1], MULTIPLES[split[2] or unit])


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

    def unambiguous(self, pairs: Iterable[tuple[float, float]]) -> dict[float, float]:
        """Percentiles in percent and their values. Raises ValueError if one has two values."""
        known: dict[float, float] = {}
        for percent, value in pairs:
            if known.setdefault(percent, value) != value:
                raise ValueError(f"two values of percentile {percent:g} in its output")
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
    """All JSON objects and arrays that begin on a line of their own; their numbers are int or float.

    A key that stands more than once in an object has the value Twice.
    """
    decoder = json.JSONDecoder(parse_float=_json_number, parse_constant=refuse, object_pairs_hook=_once)
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


def _json_number(text: str) -> float:
    """One with a point or an exponent. Raises ValueError for an absurd one."""
    return -number(text[1:]) if text.startswith("-") else number(text)


def refuse(text: str) -> None:
    """For NaN and Infinity, which are no JSON. Raises ValueError."""
    raise ValueError(f"'{text}' is no number")


def told(value: object) -> float | None:
    """A figure of a JSON document; None if it is no number, or negative. Raises ValueError for one that is Twice."""
    if isinstance(value, Twice):
        raise ValueError(f"'{value.key}' stands more than once in one object of its output")
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number is too large") from None
