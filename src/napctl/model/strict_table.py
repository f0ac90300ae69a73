"""Strict reading of TOML tables that people write: each value by the function of its key, and nothing is passed over.

A function that reads gets a value and its dotted path ("eth0.coalescing.rx-usecs", "attach[0].target"), and raises
Wrong: what is wrong there, and what is allowed.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from napctl.model.limits import CEILINGS
from napctl.model.machine import DimProfile
from napctl.model.settings import kernel_name
from napctl.model.units import duration_ns, duration_text
from napctl.model.value import Value

__all__ = [
    "U32_MAX",
    "Read",
    "Table",
    "Wrong",
    "below",
    "block",
    "duration",
    "number",
    "one_of",
    "read_table",
    "shown",
    "switch",
    "table",
    "tables",
    "text",
    "version",
]


V = TypeVar("V", bound=Value)
Table = Mapping[str, Any]
Read = Callable[[Any, str], Any]

U32_MAX = 2**32 - 1
MOST_SHOWN = 40
"""Letters of a value in a message."""


class Wrong(ValueError):
    """What is wrong at which key."""

    def __init__(self, where: str, what: str):
        super().__init__(f"{where}: {what}" if where else what)
        self.where, self.what = where, what


def read_table(value: Any, where: str, known: Mapping[str, Read], required: Iterable[str] = ()) -> dict[str, Any]:
    """The table's values, each read by the function of its key."""
    found = table(value, where)
    for name in found:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise Wrong(below(where, name), f"there is no such key; {hint}")
    for name in required:
        if name not in found:
            raise Wrong(where, f"the key {name} is missing")
    return {name: known[name](each, below(where, name)) for name, each in found.items()}


def below(where: str, name: str) -> str:
    """The path of a key of a table; at the top there is no path."""
    return f"{where}.{name}" if where else name


def table(value: Any, where: str) -> Table:
    """Any table."""
    if not isinstance(value, dict):
        raise Wrong(where, f"this has to be a table: [{where}]")
    return value


def tables(value: Any, where: str) -> list[tuple[Table, str]]:
    """An array of tables: each with its path."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Wrong(where, f"this has to be a table with two brackets, one for each: [[{where}]]")
    return [(each, f"{where}[{index}]") for index, each in enumerate(value)]


def block(kind: type[V]) -> Callable[[Any, str], V]:
    """Reads a table of settings, whose keys are the kernel's names."""
    fields = {kernel_name(field): field for field in kind.__struct_fields__}
    known = {name: _reader(field) for name, field in fields.items()}

    def read(value: Any, where: str) -> V:
        found = read_table(value, where, known)
        return kind(**{fields[name]: each for name, each in found.items()})

    return read


def _reader(field: str) -> Read:
    """The names of the model's fields tell what they hold."""
    if field.startswith("use_"):
        return switch
    if field.endswith("_profile"):
        return _profile
    most = min(CEILINGS.get(field, U32_MAX), U32_MAX)
    return duration(most_ns=most) if field.endswith("_ns") else number(most=most)


def _profile(value: Any, where: str) -> tuple[DimProfile, ...]:
    if not isinstance(value, list):
        raise Wrong(where, "a list of levels is allowed, such as [{ usecs = 8, pkts = 64 }]")
    return tuple(block(DimProfile)(level, f"{where}[{index}]") for index, level in enumerate(value))


def version(newest: int) -> Callable[[Any, str], int]:
    """Reads the version of a file of which this napctl knows up to `newest`."""

    def read(value: Any, where: str) -> int:
        found: int = number()(value, where)
        if found > newest:
            raise Wrong(where, f"{found} is newer than this napctl, which reads {newest}")
        if found < 1:
            raise Wrong(where, f"{newest} is allowed, not {found}")
        return found

    return read


def one_of(*names: str) -> Callable[[Any, str], Any]:
    """Reads one of some words."""

    def read(value: Any, where: str) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise Wrong(where, f"allowed are {', '.join(names)}, not {shown(value)}")

    return read


def duration(least_ns: int = 0, most_ns: int = U32_MAX, example: str = "50us") -> Callable[[Any, str], int]:
    """Reads a time with its unit, as ns. The kernel's attributes hold 4 s, and a little more."""
    most = "4s" if most_ns == U32_MAX else duration_text(most_ns)
    bounds = f'"{duration_text(least_ns)}" to "{most}"' if least_ns else f'at most "{most}"'
    allowed = f'a time with its unit such as "{example}" is allowed, {bounds}'

    def read(value: Any, where: str) -> int:
        try:
            ns = duration_ns(value) if isinstance(value, str) else None
        except ValueError:
            ns = None
        if ns is None or not least_ns <= ns <= most_ns:
            raise Wrong(where, f"{allowed}, not {shown(value)}")
        return ns

    return read


def number(least: int = 0, most: int = U32_MAX) -> Callable[[Any, str], int]:
    """Reads a whole number."""

    def read(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Wrong(where, f"a whole number from {least} to {most} is allowed, not {shown(value)}")
        return value

    return read


def switch(value: Any, where: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise Wrong(where, f"true or false is allowed, not {shown(value)}")
    return value


def text(value: Any, where: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise Wrong(where, f"a text in quotes is allowed, not {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value of the file, short and on one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**MOST_SHOWN:  # Python refuses to write one of 4,300 digits
        return "a number that is far too large"
    words = ascii(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
    return words if len(words) <= MOST_SHOWN else f"{words[:MOST_SHOWN]}…"
