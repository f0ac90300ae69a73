"""Names and words of others, made fit to be shown.

A process may call itself anything (prctl(2), PR_SET_NAME), a device may be called anything but "/" and whitespace, and
who may do so need not be root: escape sequences that write over a terminal or ask it to type, newlines that forge lines
of output, marks that turn the direction of what follows. Values keep the true names, by which things are found;
what is shown to people passes here.
"""

import json
import re
from collections.abc import Iterable

__all__ = ["each", "natural", "printable", "printable_json"]


def printable(text: str) -> str:
    """With what is no letter, mark, sign or space as an escape: "\\x1b", "\\n", "\\u202e". One line stays one line."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def printable_json(text: str) -> str:
    """JSON with what is not printable in its strings as an escape: it reads back as the same values.

    Without newlines and tabs between the values, as napctl.model.value.to_json() makes it.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def natural(name: str) -> list[tuple[int, str]]:
    """For sorting: 20us before 200us."""
    return [(int(digits) if digits else -1, other) for digits, other in re.findall(r"(\d+)|(\D+)", name)]


def each(items: Iterable[object]) -> str:
    """1, 2 and 3."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last
