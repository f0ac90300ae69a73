"""Times and shares as people write them: 200us, 20ms, 0; 54.2 %."""

import re
from decimal import Decimal

__all__ = ["NS_PER", "duration_ns", "duration_text", "figure", "long_duration_text", "on_or_number", "percent"]


NS_PER = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def duration_ns(text: str) -> int:
    """A time with its unit as ns; 0 needs no unit. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)|0", text)
    if match is None:
        raise ValueError(f"'{text}' is no time with its unit, such as 200us or 20ms")
    return int(Decimal(match[1]) * NS_PER[match[2]]) if match[1] else 0


def duration_text(ns: int) -> str:
    """The shortest exact form: 200us, 20ms, 0."""
    for unit in ("s", "ms", "us"):
        if ns and ns % NS_PER[unit] == 0:
            return f"{ns // NS_PER[unit]}{unit}"
    return f"{ns}ns" if ns else "0"


def long_duration_text(ns: int) -> str:
    """To the second, rounded up, for times that people wait: 30m, 1h 5m, 59s."""
    seconds = -(-ns // 10**9)
    parts = (seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")
    return " ".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def percent(share: float) -> str:
    """A share of 0 … 1 as "97.3 %"."""
    return f"{share * 100:.1f} %"


def figure(value: float) -> str:
    """As people write it, with three digits that count: 1,234; 12.3; 0.0456."""
    size = abs(value)
    if size >= 1e9:
        return f"{value:.3g}"
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    if size >= 1:
        return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.3g}"


def on_or_number(value: int | bool) -> str:
    """As ethtool(8) writes a setting: on, off, 200."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
