"""Which figures stand in a text, told apart from how napctl reads it."""

import re

from napctl.load.tools import Reading

FACTORS = (1e-3, 1, 1e3, 1e6, 6e7, 3.6e9)
"""From any unit to the one of a Reading."""


def standing(text: str) -> list[float]:
    """Every number of the text, in every unit."""
    numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?", text, re.ASCII)}
    return [number * factor for number in numbers for factor in FACTORS]


def invented(reading: Reading, text: str, *, derived: tuple[str, ...] = ()) -> dict[str, float]:
    """Figures of the reading that do not stand in the text, but for those that are derived from several there."""
    known = standing(text)
    return {
        name: value
        for name, value in reading.metrics().items()
        if name not in derived and not any(abs(value - each) <= 1e-9 * abs(each) for each in known)
    }
