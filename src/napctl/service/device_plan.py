"""What a policy wants of the devices, as a plan for this machine as it is. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec.structs import replace

from napctl.model.change import Change, NapiChange
from napctl.model.errors import BadInput
from napctl.model.machine import Coalescing, Device, Machine
from napctl.model.plan import Deferral, DevicePlan, Plan, RingSizes, queue_counts, settings
from napctl.model.policy import DeviceEntry
from napctl.model.settings import kernel_name
from napctl.model.value import Value
from napctl.plan.bounds import beyond
from napctl.plan.diff import changes
from napctl.plan.goals import GOALS
from napctl.plan.propose import propose
from napctl.service.device_drift import WantedOfDevice, wanted_of, with_suspension

__all__ = ["WantedChanges", "setting_key", "wanted_changes"]


V = TypeVar("V", bound=Value)


@dataclass(frozen=True)
class WantedChanges:
    """What differs from the policy, and what cannot be made so."""

    changes: tuple[Change, ...]
    wanted: frozenset[str]
    """Keys of all settings that the policy has a say in, also of those that are as they should be."""
    problems: Mapping[str, str]
    """By device: why nothing of it can be set."""


def setting_key(change: Change, field: str) -> str:
    """What one setting of a change is known by, for as long as its device has its name: NAPI instances count as one."""
    where = getattr(change, "device", change.where)
    queue = getattr(change, "queue", None)
    return f"{where}{'' if queue is None else f' queue {queue}'} {kernel_name(field)}"


def wanted_changes(
    entries: Sequence[DeviceEntry], machine: Machine, held: Collection[int] = (), left: Collection[str] = ()
) -> WantedChanges:
    """`held`: ids of NAPI instances that are attached, whose deferral is the attachment's. `left`: keys of settings
    that are left to somebody else."""
    found: list[Change] = []
    wanted: set[str] = set()
    problems: dict[str, str] = {}
    devices = {device.name: device for device in machine.devices}
    for name, asked in wanted_of(entries, machine).items():
        device = devices[name]
        if not device.up:
            continue
        plan = _plan_of(device, asked, machine, held)
        try:
            if unsafe := beyond(plan, machine):
                raise BadInput("; ".join(unsafe))
            differing = changes(plan, machine)
        except BadInput as error:
            problems[name] = str(error)
            continue
        planned = plan.devices[0]
        for block in (planned.coalescing, planned.rings, planned.deferral):
            wanted |= {f"{name} {kernel_name(field)}" for field, _ in settings(block)}
        for change in differing:
            if not (isinstance(change, NapiChange) and change.napi_id in held):
                found += _without(change, left)
    return WantedChanges(tuple(found), frozenset(wanted), problems)


def _plan_of(device: Device, asked: WantedOfDevice, machine: Machine, held: Collection[int]) -> Plan:
    """What a goal proposes, and over it what is written outright."""
    goal = GOALS[asked.goal.goal] if asked.goal and asked.goal.goal else GOALS["balanced"]
    budget_ns = asked.goal.max_added_latency_ns if asked.goal else None
    proposed: dict[str, Any] = {}
    if asked.goal is not None:
        seen = replace(machine, devices=(with_suspension(device, held),))
        proposed = {each.setting: each.proposed for each in propose(seen, None, goal, budget_ns, {}).proposals}
    rx_queues, tx_queues = queue_counts(device)
    planned = DevicePlan(
        name=device.name, driver=device.driver, bus=device.bus, rx_queues=rx_queues, tx_queues=tx_queues,
        speed_mbps=device.speed_mbps,
        coalescing=_block(Coalescing, proposed, asked, "coalescing"),
        rings=_block(RingSizes, {}, asked, "rings"),
        deferral=_block(Deferral, proposed, asked, "deferral"),
    )  # fmt: skip
    most_ns = goal.budget_ns if budget_ns is None else budget_ns
    return Plan(goal=goal.name, max_added_latency_ns=most_ns, devices=(planned,))


def _block(kind: type[V], proposed: Mapping[str, Any], asked: WantedOfDevice, name: str) -> V | None:
    values = {field: value for field, value in proposed.items() if field in kind.__struct_fields__}
    values |= {field: value for field, (value, _entry) in asked.outright.get(name, {}).items()}
    return kind(**values) if values else None


def _without(change: Change, left: Collection[str]) -> Iterator[Change]:
    fields = {name: value for name, value in settings(change.after) if setting_key(change, name) not in left}
    if len(fields) == len(dict(settings(change.after))):
        yield change
    elif fields:
        yield replace(change, after=type(change.after)(**fields))
