"""A Plan: the settings that devices shall have. What `plan` writes, people edit, and `apply` makes true."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from msgspec import Meta
from msgspec.structs import replace

from napctl.model.errors import BadInput
from napctl.model.machine import SCHEMA, U32, Coalescing, Device, DimProfile, Machine, QueueCoalescing
from napctl.model.settings import ThreadSettings
from napctl.model.value import Value

__all__ = [
    "Advice",
    "ChannelCounts",
    "Deferral",
    "DevicePlan",
    "GoalName",
    "InstanceThread",
    "Plan",
    "Proposal",
    "RingSizes",
    "named_as",
    "queue_counts",
    "settings",
    "thread_setting",
]


GoalName = Literal["latency", "balanced", "throughput", "efficiency", "resilient"]
"""What a plan is for; plan/goals.py says what each means."""

Speed = Annotated[int, Meta(ge=1, le=2**32 - 1)]
"""A link's, Mb/s."""


class RingSizes(Value, frozen=True, kw_only=True):
    """Descriptors of the rings. None: not touched."""

    rx: U32 | None = None
    tx: U32 | None = None


class ChannelCounts(Value, frozen=True, kw_only=True):
    """Queues in use, as the driver groups them. None: not touched."""

    rx: U32 | None = None
    tx: U32 | None = None
    combined: U32 | None = None


class Deferral(Value, frozen=True, kw_only=True):
    """Software deferral, for every NAPI instance of a device. None: not touched."""

    defer_hard_irqs: U32 | None = None
    gro_flush_timeout_ns: U32 | None = None
    """In a plan's file: gro-flush-timeout = "50us"."""


class InstanceThread(Value, frozen=True, kw_only=True):
    """The kernel thread of one NAPI instance."""

    instance: U32
    """Its place among those of the device, by their ids, from 0: not every driver tells which serves which queue."""
    thread: ThreadSettings


class DevicePlan(Value, frozen=True, kw_only=True):
    """The settings of one device, and what it was when they were computed: another machine's plan is not applied."""

    name: str
    driver: str | None
    rx_queues: U32
    tx_queues: U32
    bus: str | None = None
    """Where it sat, for example a PCI address: what an export finds it by. Another place is no mismatch."""
    speed_mbps: Speed | None = None
    """Link speed the bounds stand on: the driver's, or the one that was given."""
    coalescing: Coalescing | None = None
    """None, and None in it: not touched."""
    queues: tuple[QueueCoalescing, ...] = ()
    """What differs from queue to queue, where the driver has coalescing per queue."""
    rings: RingSizes | None = None
    deferral: Deferral | None = None
    threads: tuple[InstanceThread, ...] = ()


class Plan(Value, frozen=True, kw_only=True):
    """Settings for any number of devices of one network namespace."""

    schema: int = SCHEMA
    goal: GoalName
    max_added_latency_ns: U32
    """The budget that RX coalescing and deferral may spend of a packet's time, ns."""
    devices: tuple[DevicePlan, ...]


class Proposal(Value, frozen=True, kw_only=True):
    """One setting of a plan, explained."""

    device: str
    setting: str
    """Field name of Coalescing, RingSizes or Deferral, or thread_setting() of an instance."""
    now: int | bool | str | tuple[DimProfile, ...] | None
    """None: the driver does not have it, or NAPI instances differ in it."""
    proposed: int | bool | str | tuple[DimProfile, ...]
    why: str
    bound: str
    """What keeps it from going further."""
    sources: tuple[str, ...]
    """Where each input was read."""


class Advice(Value, frozen=True, kw_only=True):
    """A plan with its reasons. `plan` holds exactly what `proposals` explain."""

    schema: int = SCHEMA
    plan: Plan
    proposals: tuple[Proposal, ...]
    unsupported: tuple[Proposal, ...]
    """What the driver has no setting for and would have been proposed."""
    missing: tuple[str, ...]
    """Inputs that are not known and must be given: one sentence each, with the option that gives it, if one does."""
    left: tuple[str, ...] = ()
    """What was left as it is on purpose, and why: one sentence each."""


def named_as(plan: Plan, machine: Machine) -> Plan:
    """With the machine's own name for each device that the plan calls by another. Raises BadInput."""
    own = {name: device.name for device in machine.devices for name in device.alternative_names}
    found: dict[str, DevicePlan] = {}
    for planned in plan.devices:
        name = own.get(planned.name, planned.name)
        if name in found:
            raise BadInput(f"{planned.name}: the plan has this device twice, also as {found[name].name}")
        found[name] = planned
    return replace(plan, devices=tuple(replace(planned, name=name) for name, planned in found.items()))


def thread_setting(instance: int) -> str:
    """What the thread of an instance is called among settings."""
    return f"thread_{instance}"


def queue_counts(device: Device) -> tuple[int, int]:
    """(RX, TX) queues of a device, as a plan records them."""
    counts = {kind: sum(queue.kind == kind for queue in device.queues) for kind in ("rx", "tx")}
    return counts["rx"], counts["tx"]


def settings(block: Value | None) -> Iterator[tuple[str, Any]]:
    """(field, value) of all that a block of settings touches."""
    for name in block.__struct_fields__ if block is not None else ():
        value = getattr(block, name)
        if value is not None:
            yield name, value
