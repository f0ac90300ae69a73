"""Times and shares as people write them: 200us, 20ms, 0; 54.2 %."""

import re
from decimal import Decimal

NS_PER = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


def duration_ns(text: str) -> int:
    """A time with its unit as ns; 0 needs no unit. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s)|0", text)
    if match is None:
        raise ValueError(f"'{text}' is no time with its unit, such as 200us or 20ms")
    return int(Decimal(match[1]) * NS_PER[match[2]]) if match[1] else 0


def duration_text(ns: int) -> str:
    """The shortest exact form: 200us, 20ms, 0."""
    for unit in ("s", "ms", "us"):
        if ns and ns % NS_PER[unit] == 0:
            return f"{ns // NS_PER[unit]}{unit}"
    return f"{ns}ns" if ns else "0"


def percent(share: float) -> str:
    """A share of 0 … 1 as "97.3 %"."""
    return f"{share * 100:.1f} %"
