"""The one way to standard output and standard error: nothing that others have named is written as it is.

No other module of napctl prints (tests/unit/test_architecture.py). A line given here is one line there, whatever names
are in it: napctl.model.text makes it printable.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from napctl.model.text import printable, printable_json
from napctl.model.value import to_json

__all__ = [
    "CLEAR",
    "SILENT_SECONDS",
    "WIDTH",
    "echo",
    "echo_json",
    "echo_text",
    "live",
    "note",
    "print_rich",
    "width",
    "write_over",
]


if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH = 80
SILENT_SECONDS = 2.0
"""A command that takes longer says so first."""
CLEAR = "\r\033[K"
"""To the beginning of the line, and nothing left in it."""


def echo(line: str = "", *, err: bool = False) -> None:
    """One line."""
    click.echo(printable(line), err=err)


def note(line: str) -> None:
    """A line for the person at the terminal, not for the pipe."""
    echo(line, err=True)


def echo_json(value: Any, *, err: bool = False) -> None:
    """One line of JSON, in UTF-8 whatever the terminal has. It reaches a pipe at once: somebody waits for each."""
    click.echo(printable_json(to_json(value).decode()).encode(), err=err)


def echo_text(text: str) -> None:
    """A file that was asked for on standard output; it ends in a newline."""
    for line in text.removesuffix("\n").split("\n"):
        click.echo("\t".join(map(printable, line.split("\t"))))


def write_over(line: str) -> None:
    """On standard error, in the place of the last line that was written so; `write_over("")` clears it."""
    click.echo(f"{CLEAR}{printable(line)}", err=True, nl=False)


def width() -> int:
    """Columns that a table may take."""
    return _console().width


def print_rich(what: "RenderableType") -> None:
    """A table, whose cells are printable already."""
    _console().print(what)


@contextmanager
def live() -> Iterator[Callable[[Iterable[str]], None]]:
    """Yields show(lines), each of which takes the place of the last on the terminal; nothing stays in the end."""
    from rich.live import Live  # noqa: PLC0415 - needed only on a terminal
    from rich.text import Text  # noqa: PLC0415

    with Live(console=_console(), transient=True, auto_refresh=False, vertical_overflow="ellipsis") as screen:
        yield lambda lines: screen.update(Text("\n".join(map(printable, lines))), refresh=True)


def _console() -> "Console":
    """A rich console as wide as the terminal, 80 columns in a pipe."""
    from rich.console import Console  # noqa: PLC0415

    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=False)
