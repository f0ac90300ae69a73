"""Options that several commands share, and the units people write."""

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any

import click

from napctl.kernel.links import links
from napctl.model.units import NS_PER, duration_ns, duration_text

__all__ = ["Duration", "Seconds", "device_names", "devices_argument", "json_option", "offered", "verbose_option"]


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A time with its unit, such as 200us or 20ms, as ns, between two bounds in ns. 0 needs no unit."""

    name = "duration"

    def __init__(self, least_ns: int = 0, most_ns: int = 10 * NS_PER["s"]):
        self._least_ns, self._most_ns = least_ns, most_ns

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """To ns."""
        if isinstance(value, int):
            return value
        try:
            ns = duration_ns(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self._least_ns <= ns <= self._most_ns:
            bounds = f"{duration_text(self._least_ns)} and {duration_text(self._most_ns)}"
            self.fail(f"{value} is not between {bounds}", param, ctx)
        return ns


class Seconds(click.FloatRange):
    """A number of seconds, in a range; not "nan" and not "inf", which Python takes for numbers."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """To seconds."""
        seconds: float = super().convert(value, param, ctx)
        if not isfinite(seconds):
            self.fail(f"{value} is no number of seconds", param, ctx)
        return seconds


def devices_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """[DEV]…: the devices to look at."""
    return click.argument("devices", metavar="[DEV]...", nargs=-1, shell_complete=offered(device_names))(command)


def json_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help=f"{what} (schema: docs/json.md).")


def verbose_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--verbose: of a run."""
    return click.option("--verbose", is_flag=True, help="Every figure with its interval, every comparison in words.")(
        command
    )


def offered(find: Callable[[], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """A `shell_complete`: what is found that begins like the word. bash takes all that it is offered for a match.

    A shell writes to the terminal what it is offered, and takes each line for one: names that are not fit are left out.
    """
    return lambda _context, _parameter, word: [
        name for name in find() if name.startswith(word) and name.isprintable()
    ]  # fmt: skip


def device_names() -> list[str]:
    """Devices here, without loopback, by all their names."""
    return [name for link in links() if not link.loopback for name in (link.name, *link.alternative_names)]
