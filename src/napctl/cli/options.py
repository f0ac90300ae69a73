"""Options that several commands share, and the units people write."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

import click

from napctl.kernel.links import links
from napctl.kernel.namespaces import NAMED, NetworkNamespace
from napctl.model.units import NS_PER, duration_ns, duration_text

GIVEN_NETNS = "napctl.netns"
"""Key of a context's meta: the network namespace as the user wrote it."""


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


class Netns(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A network namespace: a name of `ip netns`, a path, or pid:NUMBER."""

    name = "netns"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> NetworkNamespace:
        """Open it. Raises BadInput if it is not there, NotPermitted."""
        if isinstance(value, NetworkNamespace):
            return value
        if ctx is not None:
            ctx.meta[GIVEN_NETNS] = value
        if value.startswith("pid:") and value[4:].isascii() and value[4:].isdigit():
            return NetworkNamespace.of_process(int(value[4:]))
        return NetworkNamespace.open(value) if "/" in value else NetworkNamespace.named(value)


def netns_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--netns: look into another network namespace than ours."""
    return click.option(
        "--netns",
        type=Netns(),
        default=NetworkNamespace.current,
        show_default="ours",
        metavar="NAME|PATH|pid:N",
        help="Network namespace to look into.",
        shell_complete=offered(_netns_names),
    )(command)


def devices_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """[DEV]…: the devices to look at."""
    return click.argument("devices", metavar="[DEV]...", nargs=-1, shell_complete=offered(device_names))(command)


def json_option(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help=f"{what} (schema: docs/json.md).")


def offered(find: Callable[[], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """A `shell_complete`: what is found that begins like the word. bash takes all that it is offered for a match.

    A shell writes to the terminal what it is offered, and takes each line for one: names that are not fit are left out.
    """
    return lambda _context, _parameter, word: [
        name for name in find() if name.startswith(word) and name.isprintable()
    ]  # fmt: skip


def process_names() -> list[str]:
    """Processes that hold an epoll instance."""
    from napctl.kernel import processes  # noqa: PLC0415 - only while completing

    found = set()
    for process in processes.processes():
        with suppress(OSError):  # gone meanwhile, or not ours to read
            if processes.epoll_fds(process.pid):
                found.add(process.name)
    return sorted(found)


def device_names() -> list[str]:
    """Devices here, without loopback, by all their names."""
    return [name for link in links() if not link.loopback for name in (link.name, *link.alternative_names)]


def _netns_names() -> list[str]:
    return sorted(path.name for path in Path(NAMED).glob("*"))
