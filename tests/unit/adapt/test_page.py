"""docs/adapt.md names every constant of the decision, with its value."""

import re
from pathlib import Path

from napctl.adapt import controller, controller_state, grouping, learned, preference

PAGE = Path(__file__).parents[3] / "docs/adapt.md"
LEFT_OUT = {"VERSION", "FORGOTTEN", "LONGEST_GAP", "NOTICE_SECONDS"}
"""What decides nothing, or is said in a sentence."""


def test_the_page_has_each_constant_and_its_value() -> None:
    there = {
        name: value
        for module in (controller, controller_state, grouping, learned, preference)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int | float) and name not in LEFT_OUT
    }
    told = {
        name: float(value) for name, value in re.findall(r"^\| `([A-Z_\d]+)` \| ([\d.]+) \|", PAGE.read_text(), re.M)
    }
    assert told == there
