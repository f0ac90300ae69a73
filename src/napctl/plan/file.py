"""The plan's file: TOML that people read and edit. Text in, Plan out, and back; the reading is strict.

Keys are the kernel's names (Documentation/netlink/specs/ethtool.yaml and netdev.yaml); times of the netdev family carry
their unit.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from textwrap import wrap
from typing import Any, TypeVar, get_args

from napctl.model.errors import BadInput
from napctl.model.machine import SCHEMA, Coalescing, DimProfile, QueueCoalescing
from napctl.model.plan import Deferral, DevicePlan, GoalName, Plan, Proposal, RingSizes, settings
from napctl.model.settings import kernel_name
from napctl.model.units import duration_ns, duration_text
from napctl.model.value import Value

__all__ = ["comment", "plan_of", "plan_text"]


V = TypeVar("V", bound=Value)
Table = Mapping[str, Any]
Reasons = Mapping[tuple[str, str], Proposal]
"""By device and field."""

HEADER = "napctl-plan-file"
"""The one table that is no device's: with 16 characters it is too long for one (IFNAMSIZ, include/uapi/linux/if.h).
Alternative names may be longer (ALTIFNAMSIZ there)."""
MOST_NAME_BYTES = 127
U32_MAX = 2**32 - 1
NUMBER = f"a whole number from 0 to {U32_MAX}"
WIDTH = 100


# Writing


def plan_text(plan: Plan, proposals: Iterable[Proposal] = ()) -> str:
    """The file's text, with the reason and the bound of each setting that is explained."""
    reasons = {(proposal.device, proposal.setting): proposal for proposal in proposals}
    lines = [
        "# Settings that napctl apply puts in force. A setting that is not here is not touched.",
        "# Times without a unit are µs, as ethtool has them.",
        "",
        f"[{HEADER}]",
        f"schema = {plan.schema}",
        f"goal = {_quoted(plan.goal)}",
        f"max-added-latency = {_quoted(duration_text(plan.max_added_latency_ns))}",
    ]
    for device in plan.devices:
        lines += _device_lines(device, reasons)
    return "\n".join(lines) + "\n"


def _device_lines(device: DevicePlan, reasons: Reasons) -> Iterator[str]:
    name = device.name if re.fullmatch(r"[A-Za-z0-9_-]+", device.name) else _quoted(device.name)
    yield from ("", f"[{name}]", "# What the settings were computed for; napctl apply refuses another device.")
    if device.driver is not None:
        yield f"driver = {_quoted(device.driver)}"
    if device.bus is not None:
        yield f"bus = {_quoted(device.bus)}"
    yield f"rx-queues = {device.rx_queues}"
    yield f"tx-queues = {device.tx_queues}"
    if device.speed_mbps is not None:
        yield f"speed-mbps = {device.speed_mbps}"
    own = {field: proposal for (of, field), proposal in reasons.items() if of == device.name}
    blocks = {"coalescing": device.coalescing, "rings": device.rings, "deferral": device.deferral}
    for block, values in blocks.items():
        if values is not None:
            yield from ("", f"[{name}.{block}]")
            yield from _setting_lines(values, own)
    for queue in device.queues:
        yield from ("", f"[{name}.queue.{queue.queue}]")
        yield from _setting_lines(queue.coalescing, {})


def _setting_lines(block: Value, reasons: Mapping[str, Proposal]) -> Iterator[str]:
    for field, value in settings(block):
        if field in reasons:
            yield from comment(reasons[field].why)
            yield from comment(f"At most: {reasons[field].bound}")
        yield f"{kernel_name(field)} = {_value_text(field, value)}"


def _value_text(field: str, value: Any) -> str:
    if field.endswith("_ns"):
        return _quoted(duration_text(value))
    if isinstance(value, tuple):
        levels = (", ".join(f"{name} = {number}" for name, number in settings(level)) for level in value)
        return f"[{', '.join(f'{{ {level} }}' for level in levels)}]"
    return str(value).lower()  # true and false; numbers are what they are


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's; what is not printable is an escape, as it may be read on a terminal."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def comment(text: str) -> list[str]:
    """Lines of a comment, for a plan and for what is exported from one: nothing in `text` can end it."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return wrap(printable, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


# Reading


class _Wrong(ValueError):
    """What is wrong at which key."""

    def __init__(self, where: str, what: str):
        super().__init__(f"{where}: {what}" if where else what)


def plan_of(text: str, file: str) -> Plan:
    """The plan in a file's text. Raises BadInput: one line that names file, key and what is allowed."""
    try:
        return _plan(tomllib.loads(text))
    except _Wrong as error:
        raise BadInput(f"{file}: {error}") from None
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python converts
        raise BadInput(f"{file}: this is no TOML: {str(error) or 'nested too deeply'}") from None


def _plan(tables: Table) -> Plan:
    if HEADER not in tables:
        raise _Wrong("", f"no plan of napctl: the table [{HEADER}] is missing")
    header = _table(tables[HEADER], HEADER)
    schema = _schema(header.get("schema"), f"{HEADER}.schema")  # first: a newer schema may have other keys
    known = {"schema": _schema, "goal": _goal, "max-added-latency": _duration}
    found = _read(header, HEADER, known, required=tuple(known))
    return Plan(
        schema=schema,
        goal=found["goal"],
        max_added_latency_ns=found["max-added-latency"],
        devices=tuple(_device(name, table) for name, table in tables.items() if name != HEADER),
    )


def _device(name: str, table: Any) -> DevicePlan:
    if not _may_be_a_device(name):
        raise _Wrong(name, "no name that a network device can have")
    known: dict[str, Callable[[Any, str], Any]] = {
        "driver": _text,
        "bus": _text,
        "rx-queues": _number,
        "tx-queues": _number,
        "speed-mbps": _speed,
        "coalescing": _block(Coalescing),
        "rings": _block(RingSizes),
        "deferral": _block(Deferral),
        "queue": _queues,
    }
    found = _read(_table(table, name), name, known, required=("rx-queues", "tx-queues"))
    return DevicePlan(
        name=name,
        driver=found.get("driver"),
        bus=found.get("bus"),
        rx_queues=found["rx-queues"],
        tx_queues=found["tx-queues"],
        speed_mbps=found.get("speed-mbps"),
        coalescing=found.get("coalescing"),
        queues=found.get("queue", ()),
        rings=found.get("rings"),
        deferral=found.get("deferral"),
    )


def _may_be_a_device(name: str) -> bool:
    """As dev_valid_name() of net/core/dev.c has it, but as long as an alternative name."""
    odd = any(letter in "/:" or letter.isspace() for letter in name)
    return 0 < len(name.encode()) <= MOST_NAME_BYTES and name not in (".", "..") and not odd


def _read(
    table: Table, where: str, known: Mapping[str, Callable[[Any, str], Any]], required: Iterable[str] = ()
) -> dict[str, Any]:
    """The table's values, each read by the function of its key."""
    for name in table:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise _Wrong(f"{where}.{name}", f"there is no such key; {hint}")
    for name in required:
        if name not in table:
            raise _Wrong(where, f"the key {name} is missing")
    return {name: known[name](value, f"{where}.{name}") for name, value in table.items()}


def _block(kind: type[V]) -> Callable[[Any, str], V]:
    """Reads a table of settings."""
    fields = {kernel_name(field): field for field in kind.__struct_fields__}
    known = {name: _reader(field) for name, field in fields.items()}

    def read(value: Any, where: str) -> V:
        found = _read(_table(value, where), where, known)
        return kind(**{fields[name]: each for name, each in found.items()})

    return read


def _reader(field: str) -> Callable[[Any, str], Any]:
    """The names of the model's fields tell what they hold."""
    if field.startswith("use_"):
        return _switch
    if field.endswith("_profile"):
        return _profile
    return _duration if field.endswith("_ns") else _number


def _queues(value: Any, where: str) -> tuple[QueueCoalescing, ...]:
    found = []
    for name, table in _table(value, where).items():
        if not re.fullmatch(r"0|[1-9][0-9]{0,9}", name) or int(name) > U32_MAX:
            raise _Wrong(f"{where}.{name}", f"the number of a queue is {NUMBER}")
        coalescing = _block(Coalescing)(table, f"{where}.{name}")
        found.append(QueueCoalescing(queue=int(name), coalescing=coalescing))
    return tuple(found)


def _profile(value: Any, where: str) -> tuple[DimProfile, ...]:
    if not isinstance(value, list):
        raise _Wrong(where, "a list of levels is allowed, such as [{ usecs = 8, pkts = 64 }]")
    return tuple(_block(DimProfile)(level, f"{where}[{number}]") for number, level in enumerate(value))


def _table(value: Any, where: str) -> Table:
    if not isinstance(value, dict):
        raise _Wrong(where, f"this has to be a table: [{where}]")
    return value


def _schema(value: Any, where: str) -> int:
    schema = _number(value, where)
    if schema > SCHEMA:
        raise _Wrong(where, f"{schema} is newer than this napctl, which reads {SCHEMA}")
    if schema < 1:
        raise _Wrong(where, f"{SCHEMA} is allowed, not {schema}")
    return schema


def _goal(value: Any, where: str) -> GoalName:
    for goal in get_args(GoalName):
        if value == goal:
            return goal  # type: ignore[no-any-return]
    raise _Wrong(where, f"allowed are {', '.join(get_args(GoalName))}, not {_shown(value)}")


def _duration(value: Any, where: str) -> int:
    try:
        ns = duration_ns(value) if isinstance(value, str) else None
    except ValueError:
        ns = None
    if ns is None or ns > U32_MAX:
        allowed = 'a time with its unit such as "50us" is allowed, at most "4s"'
        raise _Wrong(where, f"{allowed}, not {_shown(value)}")
    return ns


def _speed(value: Any, where: str) -> int:
    if _number(value, where) == 0:
        raise _Wrong(where, "0 is no link speed; leave the key out if it is not known")
    return int(value)


def _number(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= U32_MAX:
        raise _Wrong(where, f"{NUMBER} is allowed, not {_shown(value)}")
    return value


def _switch(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(where, f"true or false is allowed, not {_shown(value)}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _Wrong(where, f"a text in quotes is allowed, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value of the file, short and on one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = ascii(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}…"
