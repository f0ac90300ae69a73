"""On which line of a TOML text each key stands, which tomllib does not tell.

For text that tomllib has read: what is no TOML is not noticed here. A path is as in strict_table.py: names with dots
between them, and "[0]" behind that of an array.
"""

import re
import tomllib
from collections.abc import Mapping

__all__ = ["key_lines", "line_of"]


BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
SPACE = re.compile(r"[ \t]*")
BARE = re.compile(r"[A-Za-z0-9_-]+")
TEXT = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL)
SCALAR = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> Mapping[str, int]:
    """{path: line}, from 1; of a table that has several headers the first."""
    return _Scan(text).lines()


def line_of(lines: Mapping[str, int], path: str) -> int:
    """The line of a path, or of the nearest thing above it; 1 for the whole file."""
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path, 1)


class _Scan:
    def __init__(self, text: str):
        self._text, self._at = text, 0
        self._lines: dict[str, int] = {}
        self._tables: dict[str, int] = {}
        """Of each array of tables, how many there are."""
        self._line, self._counted = 1, 0

    def lines(self) -> Mapping[str, int]:
        """From the first statement to the last."""
        above = ""
        self._skip(BLANK)
        while self._at < len(self._text):
            begin = self._at
            if self._text.startswith("[[", self._at):
                above = self._array_header()
            elif self._text.startswith("[", self._at):
                self._at += 1
                above = self._key("")
                self._skip(SPACE)
                self._at += 1
            else:
                self._pair(above)
            self._skip(BLANK)
            if self._at == begin:  # what tomllib would have refused
                break
        return self._lines

    def _array_header(self) -> str:
        here = self._line_here()
        self._at += 2
        name = self._key("")
        number = self._tables.get(name, 0)
        self._tables[name] = number + 1
        self._skip(SPACE)
        self._at += 2
        path = f"{name}[{number}]"
        self._lines[path] = here
        return path

    def _pair(self, above: str) -> None:
        path = self._key(above)
        self._skip(SPACE)
        self._at += 1  # the equals sign
        self._skip(SPACE)
        self._value(path)

    def _key(self, above: str) -> str:
        """A dotted key, below the last of the tables that an array of that name has."""
        path, here = above, self._line_here()
        while True:
            self._skip(SPACE)
            path = f"{path}.{self._name()}" if path else self._name()
            self._lines.setdefault(path, here)
            self._skip(SPACE)
            if not self._text.startswith(".", self._at):
                return path
            self._at += 1
            if path in self._tables:
                path = f"{path}[{self._tables[path] - 1}]"

    def _name(self) -> str:
        if found := TEXT.match(self._text, self._at):
            self._at = found.end()
            return _unquoted(found[0])
        found = BARE.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return found[0] if found else ""

    def _value(self, path: str) -> None:
        if self._text.startswith("[", self._at):
            self._items(path, "]")
        elif self._text.startswith("{", self._at):
            self._items(path, "}")
        else:
            self._skip(TEXT if TEXT.match(self._text, self._at) else SCALAR)

    def _items(self, path: str, end: str) -> None:
        """An array, or an inline table."""
        self._at += 1
        number = 0
        while True:
            self._skip(BLANK)
            begin = self._at
            if self._at >= len(self._text) or self._text[self._at] == end:
                self._at += 1
                return
            if end == "]":
                self._lines[f"{path}[{number}]"] = self._line_here()
                self._value(f"{path}[{number}]")
                number += 1
            else:
                self._pair(path)
            self._skip(BLANK)
            if self._text.startswith(",", self._at):
                self._at += 1
            elif self._at == begin:
                return

    def _skip(self, what: "re.Pattern[str]") -> None:
        found = what.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line


def _unquoted(text: str) -> str:
    """A quoted key's name."""
    if text.startswith("'"):
        return text[1:-1]
    return str(tomllib.loads(f"key = {text}")["key"])
