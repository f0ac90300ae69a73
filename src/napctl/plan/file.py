"""The plan's file: TOML that people read and edit. Text in, Plan out, and back; the reading is strict.

Keys are the kernel's names (Documentation/netlink/specs/ethtool.yaml and netdev.yaml); times of the netdev family carry
their unit.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from textwrap import wrap
from typing import Any, get_args

from napctl.model.cpus import cpus_text, parse_cpus
from napctl.model.errors import BadInput
from napctl.model.limits import LEAST_NICE, MOST_NICE
from napctl.model.machine import SCHEMA, Coalescing, QueueCoalescing
from napctl.model.plan import (
    Deferral,
    DevicePlan,
    GoalName,
    InstanceThread,
    Plan,
    Proposal,
    RingSizes,
    settings,
    thread_setting,
)
from napctl.model.settings import BUSY_POLL, ENABLED, ThreadSettings, kernel_name
from napctl.model.strict_table import (
    U32_MAX,
    Read,
    Table,
    Wrong,
    block,
    duration,
    number,
    one_of,
    read_table,
    shown,
    table,
    text,
    version,
)
from napctl.model.units import duration_text
from napctl.model.value import Value

__all__ = ["comment", "may_be_a_device", "plan_of", "plan_text", "quoted", "value_line"]


Reasons = Mapping[tuple[str, str], Proposal]
"""By device and field."""

HEADER = "napctl-plan-file"
"""The one table that is no device's: with 16 characters it is too long for one (IFNAMSIZ, include/uapi/linux/if.h).
Alternative names may be longer (ALTIFNAMSIZ there)."""
MOST_NAME_BYTES = 127
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
        f"goal = {quoted(plan.goal)}",
        f"max-added-latency = {quoted(duration_text(plan.max_added_latency_ns))}",
    ]
    for device in plan.devices:
        lines += _device_lines(device, reasons)
    return "\n".join(lines) + "\n"


def _device_lines(device: DevicePlan, reasons: Reasons) -> Iterator[str]:
    name = device.name if re.fullmatch(r"[A-Za-z0-9_-]+", device.name) else quoted(device.name)
    yield from ("", f"[{name}]", "# What the settings were computed for; napctl apply refuses another device.")
    if device.driver is not None:
        yield f"driver = {quoted(device.driver)}"
    if device.bus is not None:
        yield f"bus = {quoted(device.bus)}"
    yield f"rx-queues = {device.rx_queues}"
    yield f"tx-queues = {device.tx_queues}"
    if device.speed_mbps is not None:
        yield f"speed-mbps = {device.speed_mbps}"
    own = {field: proposal for (of, field), proposal in reasons.items() if of == device.name}
    blocks = {"coalescing": device.coalescing, "rings": device.rings, "deferral": device.deferral}
    for kind, values in blocks.items():
        if values is not None:
            yield from ("", f"[{name}.{kind}]")
            yield from _setting_lines(values, own)
    for queue in device.queues:
        yield from ("", f"[{name}.queue.{queue.queue}]")
        yield from _setting_lines(queue.coalescing, {})
    for each in device.threads:
        yield from ("", f"[{name}.thread.{each.instance}]")
        if thread_setting(each.instance) in own:
            yield from comment(own[thread_setting(each.instance)].why)
        yield from _setting_lines(each.thread, {})


def _setting_lines(block: Value, reasons: Mapping[str, Proposal]) -> Iterator[str]:
    for field, value in settings(block):
        if field in reasons:
            yield from comment(reasons[field].why)
            yield from comment(f"At most: {reasons[field].bound}")
        yield value_line(field, value)


def value_line(field: str, value: Any) -> str:
    """One setting, as the file has it."""
    return f"{kernel_name(field)} = {_value_text(field, value)}"


def _value_text(field: str, value: Any) -> str:
    if field.endswith("_ns"):
        return quoted(duration_text(value))
    if isinstance(value, tuple):
        levels = (", ".join(f"{name} = {number}" for name, number in settings(level)) for level in value)
        return f"[{', '.join(f'{{ {level} }}' for level in levels)}]"
    if isinstance(value, str):
        return quoted(value)
    return str(value).lower()  # true and false; numbers are what they are


def quoted(text: str) -> str:
    """A basic string of TOML: JSON's; what is not printable is an escape, as it may be read on a terminal."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def comment(text: str) -> list[str]:
    """Lines of a comment, for a plan and for what is exported from one: nothing in `text` can end it."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return wrap(printable, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


# Reading


def plan_of(toml: str, file: str) -> Plan:
    """The plan in a file's text. Raises BadInput: one line that names file, key and what is allowed."""
    try:
        return _plan(tomllib.loads(toml))
    except Wrong as error:
        raise BadInput(f"{file}: {error}") from None
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python converts
        raise BadInput(f"{file}: this is no TOML: {str(error) or 'nested too deeply'}") from None


def _plan(tables: Table) -> Plan:
    if HEADER not in tables:
        raise Wrong("", f"no plan of napctl: the table [{HEADER}] is missing")
    header = table(tables[HEADER], HEADER)
    read_version = version(SCHEMA)
    read_version(header.get("schema"), f"{HEADER}.schema")  # first: a newer schema may have other keys
    known: dict[str, Read] = {
        "schema": read_version,
        "goal": one_of(*get_args(GoalName)),
        "max-added-latency": duration(),
    }
    found = read_table(header, HEADER, known, required=tuple(known))
    return Plan(
        schema=found["schema"],
        goal=found["goal"],
        max_added_latency_ns=found["max-added-latency"],
        devices=tuple(_device(name, each) for name, each in tables.items() if name != HEADER),
    )


def _device(name: str, value: Any) -> DevicePlan:
    if not may_be_a_device(name):
        raise Wrong(name, "no name that a network device can have")
    known: dict[str, Read] = {
        "driver": text,
        "bus": text,
        "rx-queues": number(),
        "tx-queues": number(),
        "speed-mbps": _speed,
        "coalescing": block(Coalescing),
        "rings": block(RingSizes),
        "deferral": block(Deferral),
        "queue": _queues,
        "thread": _threads,
    }
    found = read_table(value, name, known, required=("rx-queues", "tx-queues"))
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
        threads=found.get("thread", ()),
    )


def may_be_a_device(name: str) -> bool:
    """As dev_valid_name() of net/core/dev.c has it, but as long as an alternative name."""
    odd = any(letter in "/:" or letter.isspace() for letter in name)
    return 0 < len(name.encode()) <= MOST_NAME_BYTES and name not in (".", "..") and not odd


def _queues(value: Any, where: str) -> tuple[QueueCoalescing, ...]:
    read = block(Coalescing)
    return tuple(
        QueueCoalescing(queue=queue, coalescing=read(each, at)) for queue, each, at in _by_number(value, where, "queue")
    )


def _threads(value: Any, where: str) -> tuple[InstanceThread, ...]:
    """A thread is begun, and ends when the plan is put back."""
    known: dict[str, Read] = {
        "threaded": one_of(ENABLED, BUSY_POLL),
        "nice": number(LEAST_NICE, MOST_NICE),
        "cpus": _cpus,
    }
    return tuple(
        InstanceThread(instance=number, thread=ThreadSettings(**read_table(each, at, known, required=("threaded",))))
        for number, each, at in _by_number(value, where, "NAPI instance")
    )


def _by_number(value: Any, where: str, what: str) -> Iterator[tuple[int, Any, str]]:
    """(number, its table, where that is)."""
    for name, each in table(value, where).items():
        if not re.fullmatch(r"0|[1-9][0-9]{0,9}", name) or int(name) > U32_MAX:
            raise Wrong(f"{where}.{name}", f"the number of a {what} is a whole number from 0 to {U32_MAX}")
        yield int(name), each, f"{where}.{name}"


def _cpus(value: Any, where: str) -> str:
    """In the shortest form, as the kernel has it."""
    listed = isinstance(value, str) and re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", value)
    cpus = parse_cpus(value) if listed else frozenset[int]()
    if not cpus:
        raise Wrong(where, f'a list of CPUs such as "0-3,8" is allowed, not {shown(value)}')
    return cpus_text(cpus)


def _speed(value: Any, where: str) -> int:
    speed: int = number()(value, where)
    if speed == 0:
        raise Wrong(where, "0 is no link speed; leave the key out if it is not known")
    return speed
