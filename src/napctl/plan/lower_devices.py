"""Where to look instead of at a device that stands on others."""

from collections.abc import Collection

from napctl.model.machine import Device, LowerDevice
from napctl.model.text import each

__all__ = ["look_below"]


MOST = 4
"""Lower devices that are named; a bridge may have hundreds."""


def look_below(device: Device, command: str, *, seen: Collection[str] = (), one_by_one: bool = False) -> str:
    """Which devices take its packets, and the command that looks at those; empty if it does itself.

    Devices that are `seen` already need no other look. `one_by_one`: the command takes one device only.
    """
    lower = [one for one in device.lower if one.elsewhere or one.name not in seen]
    if not lower:
        return ""
    named, more = lower[:MOST], len(lower) - MOST
    names = [*(_name(one) for one in named), *([f"{more} more"] if more > 0 else [])]
    through = list(dict.fromkeys(name for one in lower for name in one.through))
    between = f" (through {each(through)})" if through else ""
    what = f"{device.name} is {_article(device.kind)} on {each(names)}{between}"
    means = "where its packets are taken and delays are set"
    commands = _commands([one for one in named if one.name], command, one_by_one=one_by_one)
    return f"{what}, {means}" + (f"; look there: {each(commands)}" if commands else "")


def _name(lower: LowerDevice) -> str:
    if lower.name is None:
        return f"interface {lower.ifindex} of a network namespace that cannot be seen from here"
    if not lower.elsewhere:
        return lower.name
    where = {"": "ours", None: "which nobody is in"}.get(lower.netns, lower.netns)
    return f"{lower.name} of another network namespace ({where})"


def _article(kind: str | None) -> str:
    return f"an {kind}" if kind and kind[0] in "aeiou" else f"a {kind or 'device'}"


def _commands(lower: list[LowerDevice], command: str, *, one_by_one: bool) -> list[str]:
    """One for each namespace that can be named, or for each device."""
    by_place: dict[str, list[str]] = {}
    for one in lower:
        if one.netns is not None and one.name is not None:
            by_place.setdefault(one.netns, []).append(one.name)
    found = []
    for netns, names in by_place.items():
        option = f" --netns {netns}" if netns else ""
        found += [f"napctl {command} {name}{option}" for name in (names if one_by_one else [" ".join(names)])]
    return found
