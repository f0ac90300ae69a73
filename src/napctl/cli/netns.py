"""--netns: how a network namespace is given on the command line."""

from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

import click

from napctl.cli.options import offered
from napctl.kernel.namespaces import NAMED, NetworkNamespace

__all__ = ["GIVEN_NETNS", "Netns", "netns_option", "netns_words"]


GIVEN_NETNS = "napctl.netns"
"""Key of a context's meta: the network namespace as the user wrote it."""


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


def netns_words() -> str:
    """What a napctl command that is advised needs to look where this one does: " --netns NAME", or nothing."""
    given = click.get_current_context().meta.get(GIVEN_NETNS)
    return f" --netns {quote(given)}" if given else ""


def _netns_names() -> list[str]:
    return sorted(path.name for path in Path(NAMED).glob("*"))
