"""docs/overload.md names every constant of the ladder, with its value."""

import re
from pathlib import Path

from napctl.model import overload
from napctl.protect import ladder
from napctl.protect.protect_options import ProtectOptions

PAGE = (Path(__file__).parents[3] / "docs/overload.md").read_text()


def test_the_page_has_each_constant_and_its_value() -> None:
    constants = {name: value for name, value in vars(ladder).items() if name.isupper() and isinstance(value, float)}
    del constants["LATE_PER_SECOND"]
    told = {name: float(value) for name, value in re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) \|", PAGE, re.M)}
    assert told == constants


def test_the_page_says_when_a_cpu_is_overloaded() -> None:
    words = " ".join(PAGE.split())
    assert f"takes {ProtectOptions().threshold * 100:.0f} % of it" in words
    assert (overload.HALF, overload.FOR_NOTHING, overload.THREADS_WAIT) == (0.5, 0.1, 0.5)
    assert f"{overload.LATE_PER_SECOND:.0f} packets/s or more are dropped after the stack has worked on them" in words
