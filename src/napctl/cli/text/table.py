"""Tables for people: 80 columns, no colour needed, fit for a pipe."""

from collections.abc import Iterable, Sequence
from textwrap import wrap

from napctl.cli.terminal import WIDTH, echo, print_rich
from napctl.model import units
from napctl.model.text import printable

__all__ = ["ABSENT", "GAP", "number", "optional", "paragraph", "percent", "print_table", "wrapped"]


GAP = 2
"""Between two columns."""
ABSENT = "–"
"""Printed where a driver, kernel or source does not have the value; never 0."""


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, indent: int = 0, left: int = 1, whole: bool = False
) -> None:
    """Print rows under their headings; the first `left` columns are flush left, the others (figures) right.

    `whole`: names in the first column are never folded, whatever that costs the others.
    """
    from rich.padding import Padding  # noqa: PLC0415 - 50 ms, needed only to print
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        heading = Text("\n".join(map(printable, column.split("\n"))))
        table.add_column(heading, justify="left" if number < left else "right", header_style="bold", overflow="fold",
                         no_wrap=whole and not number)  # fmt: skip
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # a process may call itself [red]
    print_rich(Padding(table, (0, 0, 0, indent), expand=False))


def wrapped(text: str, *, first: str = "", rest: str = "") -> list[str]:
    """Sentences in lines of 80 columns, the first behind `first`, the others behind `rest`; names are kept whole, and
    so are shares: 8 %."""
    whole = printable(text).replace(" %", "\u00a0%")
    lines = wrap(whole, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return [line.replace("\u00a0%", " %") for line in lines]


def paragraph(text: str, *, first: str = "", rest: str = "") -> None:
    """Print them."""
    for line in wrapped(text, first=first, rest=rest):
        echo(line)


def number(value: float | None) -> str:
    """1,234 or 12.3 or 0.05; whole numbers whole; ABSENT for None."""
    if value is None:
        return ABSENT
    if value == 0 or value >= 100 or isinstance(value, int):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(share: float | None) -> str:
    """A share of 0 … 1 as "97.3 %"."""
    return ABSENT if share is None else units.percent(share)


def optional(value: object) -> str:
    """The value as text; ABSENT for None."""
    return ABSENT if value is None else str(value)
