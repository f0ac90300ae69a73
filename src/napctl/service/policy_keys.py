"""The keys of a policy's file: what each may hold, and what of one table contradicts itself.

Keys are the names of the options of `attach` and `plan`, and the kernel's names of settings. All raise Wrong.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import PurePath
from typing import Any, get_args

from napctl.adapt.preference import Prefer
from napctl.attach.attach_options import RANGE, AttachOptions, options_of, timer_ns_of, timer_range_ns_of
from napctl.attach.target import parse
from napctl.model.errors import BadInput
from napctl.model.limits import (
    HIGHEST_RATE,
    LEAST_BUDGET_NS,
    LEAST_THRESHOLD,
    LONGEST_TIMER_NS,
    MOST_ADDED_LATENCY_NS,
    MOST_BUSY_POLL_BUDGET,
    MOST_BUSY_POLL_USECS,
    MOST_DEFER_HARD_IRQS,
    MOST_THRESHOLD,
)
from napctl.model.machine import Coalescing
from napctl.model.modes import ASKED
from napctl.model.plan import Deferral, GoalName, RingSizes, settings
from napctl.model.policy import AttachEntry, DeviceEntry, MetricsPlace, OnStop, Origin
from napctl.model.settings import kernel_name
from napctl.model.strict_table import (
    Read,
    Wrong,
    below,
    block,
    duration,
    number,
    one_of,
    read_table,
    shown,
    switch,
    text,
)
from napctl.model.units import NS_PER
from napctl.plan.file import may_be_a_device
from napctl.plan.goals import GOALS

__all__ = [
    "ATTACH",
    "DEVICE",
    "PROTECT",
    "SERVICE",
    "attach_entry",
    "attach_options_of",
    "device_entry",
    "options_for_once",
    "protect_values",
    "refuse_beyond_loopback",
    "service_values",
    "set_by",
]


TEXTFILE = "textfile:"
PROM = ".prom"
"""Other files the textfile collector of node_exporter passes over."""
PLACE = f'"127.0.0.1:9811" or "{TEXTFILE}/var/lib/prometheus/node-exporter/napctl{PROM}"'


# [[attach]]


def attach_entry(value: Any, where: str, origin: Origin) -> AttachEntry:
    """One target, with options that attach_options_of() takes."""
    found = read_table(value, where, ATTACH, required=("target",))
    entry = AttachEntry(origin=origin, **{_field(AttachEntry, name): each for name, each in found.items()})
    try:
        attach_options_of(entry)
    except BadInput as error:
        key = _first_named(str(error), found)
        words = str(error).removeprefix(f"--{key}").lstrip(": ")
        raise Wrong(below(where, key) if key else where, re.sub(r"--(?=[a-z])", "", words)) from None
    return entry


def attach_options_of(entry: AttachEntry) -> AttachOptions:
    """As `napctl attach --stay` would have it. Raises BadInput, but not for an entry that was read from a file."""
    values = {name: getattr(entry, name) for name in entry.__struct_fields__ if name not in ("origin", "target")}
    return options_of(values, stays=True)


def options_for_once(entry: AttachEntry) -> AttachOptions:
    """Of who does not stay, and so cannot adapt: within the budget one timer is chosen."""
    values = {name: getattr(entry, name) for name in entry.__struct_fields__ if name not in ("origin", "target")}
    return options_of(values | {"timer_range_ns": None, "prefer": None}, stays=False)


def _first_named(words: str, found: Mapping[str, Any]) -> str:
    """The key that a message names first, as an option or in words; empty if it names none of the table."""
    places = {name: _place_of(name, words) for name in found if name != "target"}
    named = [name for name in places if places[name] >= 0]
    return min(named, key=places.__getitem__, default="")


def _place_of(name: str, words: str) -> int:
    match = re.search(rf"--{name}\b|\b{name.replace('-', ' ')}\b", words)
    return match.start() if match else -1


def _target(value: Any, where: str) -> str:
    try:
        parse(text(value, where))
    except BadInput as error:
        raise Wrong(where, f"{error}; allowed is what `napctl attach` takes") from None
    return str(value)


def _timer(value: Any, where: str) -> int | None:
    """A number is µs, as of the option."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not isinstance(value, str):
        raise Wrong(where, f'"auto" or a number of µs is allowed, such as 50 or "50us", not {shown(value)}')
    try:
        return timer_ns_of(str(number()(value, where)) if is_number else value)
    except Wrong:
        raise
    except ValueError as error:
        raise Wrong(where, str(error)) from None


def _timer_range(value: Any, where: str) -> tuple[int, int]:
    try:
        shortest_ns, longest_ns = timer_range_ns_of(text(value, where))
    except Wrong:
        raise
    except ValueError as error:
        raise Wrong(where, str(error)) from None
    if not 0 < shortest_ns <= longest_ns:
        raise Wrong(where, f'"{value}" is empty: the shortest comes first, and is longer than 0, such as "{RANGE}"')
    return shortest_ns, longest_ns


ATTACH: Mapping[str, Read] = {
    "target": _target,
    "steer": switch,
    "force": switch,
    "mode": one_of(*ASKED),
    "spin": switch,
    "defer-us": _timer,
    "latency-budget": duration(LEAST_BUDGET_NS, LONGEST_TIMER_NS, "150us"),
    "timer-range": _timer_range,
    "prefer": one_of(*get_args(Prefer)),
    "defer-hard-irqs": number(1, MOST_DEFER_HARD_IRQS),
    "irq-suspend-timeout": duration(1, LONGEST_TIMER_NS, "20ms"),
    "busy-poll-usecs": number(0, MOST_BUSY_POLL_USECS),
    "busy-poll-budget": number(1, MOST_BUSY_POLL_BUDGET),
}


# [[device]]


def device_entry(value: Any, where: str, origin: Origin) -> DeviceEntry:
    """Which devices, and what of them."""
    found = read_table(value, where, DEVICE)
    matchers = [name for name in MATCHERS if name in found]
    if len(matchers) != 1:
        given = f"not {' and '.join(matchers)}" if matchers else "and none is there"
        raise Wrong(where, f"exactly one of {', '.join(MATCHERS)} says which devices are meant, {given}")
    if "max-added-latency" in found and "goal" not in found:
        raise Wrong(below(where, "max-added-latency"), "this is the budget of a goal, which is missing here")
    entry = DeviceEntry(origin=origin, **{_field(DeviceEntry, name): each for name, each in found.items()})
    if not set_by(entry):
        raise Wrong(where, f"nothing is set; known are {', '.join(name for name in DEVICE if name not in MATCHERS)}")
    return entry


def set_by(entry: DeviceEntry) -> tuple[str, ...]:
    """All that an entry sets, as the file has it: "goal", "channels", "rings.rx"."""
    alone = [name for name in ("goal", "channels") if getattr(entry, name) is not None]
    inside = [
        f"{name}.{key}"
        for name in ("coalescing", "deferral", "rings")
        if (values := getattr(entry, name)) is not None
        for key in _names_in(values)
    ]
    return (*alone, *inside)


def _names_in(values: Coalescing | Deferral | RingSizes) -> list[str]:
    return [kernel_name(field) for field, _ in settings(values)]


def _device_name(value: Any, where: str) -> str:
    if not may_be_a_device(text(value, where)):
        raise Wrong(where, f"{shown(value)} is no name that a network device can have")
    return str(value)


def _driver(value: Any, where: str) -> str:
    if not text(value, where).strip():
        raise Wrong(where, 'the name of a driver is allowed, such as "mlx5_core"')
    return str(value)


def _all(value: Any, where: str) -> bool:
    if value is not True:
        raise Wrong(where, f"true is allowed, not {shown(value)}; else leave the key out")
    return True


MATCHERS = ("name", "driver", "all")
DEVICE: Mapping[str, Read] = {
    "name": _device_name,
    "driver": _driver,
    "all": _all,
    "goal": one_of(*(each for each in get_args(GoalName) if not GOALS[each].threads)),
    "max-added-latency": duration(0, MOST_ADDED_LATENCY_NS),
    "coalescing": block(Coalescing),
    "deferral": block(Deferral),
    "rings": block(RingSizes),
    "channels": number(1),
}


# [protect]


def protect_values(value: Any, where: str) -> dict[str, Any]:
    """By key: several files may have some each."""
    return read_table(value, where, PROTECT)


def _protected(value: Any, where: str) -> tuple[str, ...] | None:
    """None: all."""
    if value == "all":
        return None
    if not isinstance(value, list) or not value:
        raise Wrong(where, f'"all" (network hardware that is up), or a list of names such as ["eth0"], is allowed, not '
                    f"{shown(value)}")  # fmt: skip
    names = tuple(_device_name(each, where) for each in value)
    if len(set(names)) < len(names):
        raise Wrong(where, "a device is named twice")
    return names


PROTECT: Mapping[str, Read] = {
    "devices": _protected,
    "threshold": number(LEAST_THRESHOLD, MOST_THRESHOLD),
    "storm-control": number(1, HIGHEST_RATE),
}


# [service]


def service_values(value: Any, where: str) -> dict[str, Any]:
    """By key: several files may have some each."""
    return read_table(value, where, SERVICE)


def refuse_beyond_loopback(place: MetricsPlace, where: str, *, beyond: bool) -> None:
    """Who can read metrics learns what runs here: that they leave the machine is to be said outright."""
    if place.is_beyond_loopback and not beyond:
        raise Wrong(
            where,
            f"{place.address} is no loopback address, and metrics-beyond-loopback = true is not there to allow it",
        )


def _metrics(value: Any, where: str) -> MetricsPlace:
    words = text(value, where)
    if words.startswith(TEXTFILE):
        return _textfile(words.removeprefix(TEXTFILE), where)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", words)
    try:
        address = ip_address((match[1] or match[2]) if match else "")
    except ValueError:
        raise Wrong(where, f"an address with its port, or a file, is allowed, {PLACE}; not {shown(value)}") from None
    assert match is not None
    port = int(match[3])
    if (address.version == 6) is not bool(match[1]) or not 0 < port <= 65535:
        raise Wrong(where, f"{shown(value)}: a port is a number from 1 to 65535, and IPv6 stands in brackets")
    return MetricsPlace(address=str(address), port=port)


def _textfile(path: str, where: str) -> MetricsPlace:
    if not path.isprintable() or not path.startswith("/") or PurePath(path).suffix != PROM:
        raise Wrong(where, f"a whole path to a file that ends in {PROM} is allowed, not {shown(path)}")
    return MetricsPlace(textfile=path)


SERVICE: Mapping[str, Read] = {
    "on-stop": one_of(*get_args(OnStop)),
    "guard-wait": duration(NS_PER["s"], NS_PER["h"], "60s"),
    "metrics": _metrics,
    "metrics-beyond-loopback": switch,
    "metrics-per-napi": switch,
}


FIELDS = {"defer-us": "timer_ns"}
"""Of keys that are called otherwise in the model."""


def _field(kind: type[AttachEntry | DeviceEntry], name: str) -> str:
    """The model's field of a key: times have their unit there."""
    field = FIELDS.get(name, name.replace("-", "_"))
    return field if field in kind.__struct_fields__ else f"{field}_ns"
