"""What a policy wants of the devices, as changes for this machine as it is. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec.structs import replace

from napctl.change.one_change import drifts
from napctl.change.renewal import object_of
from napctl.model.change import Change, ChannelsChange, CoalescingChange, DeviceChange, NapiChange, RingsChange
from napctl.model.errors import BadInput
from napctl.model.machine import Channels, Coalescing, Device, Machine
from napctl.model.plan import ChannelCounts, Deferral, DevicePlan, Plan, RingSizes, queue_counts, settings
from napctl.model.policy import DeviceEntry
from napctl.model.settings import kernel_name
from napctl.model.value import Value
from napctl.plan.bounds import beyond, leased
from napctl.plan.diff import changes
from napctl.plan.goals import GOALS
from napctl.plan.propose import propose
from napctl.service.device_drift import WantedOfDevice, channel_counts, wanted_of, with_suspension

__all__ = ["Setting", "WantedChanges", "called", "setting_key", "settings_of", "wanted_changes", "without_idle"]


V = TypeVar("V", bound=Value)
Setting = tuple[int, str]
"""Interface index, and what the setting is called()."""
SUFFIX = {RingsChange: "_rings", ChannelsChange: "_channels"}


@dataclass(frozen=True)
class WantedChanges:
    """What differs from the policy, and what cannot be made so."""

    changes: tuple[Change, ...]
    """In the order in which they are to be made. Where a device gets other channels, its other settings come
    afterwards, by another look: its queues are started anew."""
    wanted: frozenset[Setting]
    """All that the policy has a say in, also what is as it should be."""
    undecided: frozenset[int]
    """Interface indexes of devices of which that cannot be said now, as they are down or there is a problem."""
    problems: Mapping[str, str]
    """By device: why nothing of it can be set."""


def called(change: Change, field: str) -> str:
    """A setting by a name that no other setting of its device has: rx_usecs, rx_rings, combined_channels."""
    return field + SUFFIX.get(type(change), "")


def setting_key(change: Change, field: str) -> str:
    """What one setting of a change is known by, for as long as its device has its name: NAPI instances count as one."""
    where = getattr(change, "device", change.where)
    queue = getattr(change, "queue", None)
    return f"{where}{'' if queue is None else f' queue {queue}'} {kernel_name(called(change, field))}"


def settings_of(change: Change) -> Iterator[tuple[str, Setting]]:
    """(field, setting) of all that a change asks for."""
    for field, _ in settings(change.after):
        yield field, (getattr(change, "ifindex", 0), called(change, field))


def wanted_changes(
    entries: Sequence[DeviceEntry], machine: Machine, held: Collection[int] = (), left: Collection[str] = (),
    in_force: Iterable[Change] = (),
) -> WantedChanges:  # fmt: skip
    """`held`: ids of NAPI instances that are attached, whose deferral is the attachment's. `left`: keys of settings
    that are left to somebody else. `in_force`: what was set before, which a goal is not to take for what was there."""
    made = {object_of(each): each for each in in_force}
    found: list[Change] = []
    wanted: set[Setting] = set()
    undecided = {device.ifindex for device in machine.devices if not device.up}
    problems: dict[str, str] = {}
    devices = {device.name: device for device in machine.devices}
    for name, asked in wanted_of(entries, machine).items():
        device = devices[name]
        if not device.up:
            continue
        channels = channel_counts(device.channels, *asked.outright.get("channels", {}).get("combined", (None, None)))
        plan = _plan_of(device, asked, machine, held, made)
        try:
            if unsafe := (*leased(device), *_too_many(device, channels), *beyond(plan, machine)):
                raise BadInput("; ".join(unsafe))
            differing = changes(plan, machine)
        except BadInput as error:
            problems[name] = str(error)
            undecided.add(device.ifindex)
            continue
        planned = plan.devices[0]
        blocks = ((planned.coalescing, ""), (planned.rings, "_rings"), (planned.deferral, ""), (channels, "_channels"))
        wanted |= {(device.ifindex, f"{field}{suffix}") for block, suffix in blocks for field, _ in settings(block)}
        of_napis = (each for each in differing if not (isinstance(each, NapiChange) and each.napi_id in held))
        both = (tuple(_rechanneled(device, channels, machine.netns)), of_napis)
        first, rest = ([one for each in some for one in _still_to_be_made(each, made, left)] for some in both)
        found += first or without_idle(rest)
    return WantedChanges(tuple(found), frozenset(wanted), frozenset(undecided), problems)


def without_idle(asked: Sequence[Change]) -> list[Change]:
    """Without those that ask for nothing, and only record what new rings move beside them, where there are none."""
    resized = {each.ifindex for each in asked if isinstance(each, RingsChange)}
    return [each for each in asked if any(settings(each.after)) or getattr(each, "ifindex", 0) in resized]


def _plan_of(
    device: Device, asked: WantedOfDevice, machine: Machine, held: Collection[int],
    made: Mapping[tuple[object, ...], Change],
) -> Plan:  # fmt: skip
    """What a goal proposes, and over it what is written outright."""
    goal = GOALS[asked.goal.goal] if asked.goal and asked.goal.goal else GOALS["balanced"]
    budget_ns = asked.goal.max_added_latency_ns if asked.goal else None
    proposed: dict[str, Any] = {}
    if asked.goal is not None:
        bare = _before_napctl(device, machine.netns, made)
        seen = replace(machine, devices=(with_suspension(bare, held),))
        proposed = {each.setting: each.proposed for each in propose(seen, None, goal, budget_ns, {}).proposals}
    rx_queues, tx_queues = queue_counts(device)
    planned = DevicePlan(
        name=device.name, driver=device.driver, bus=device.bus, rx_queues=rx_queues, tx_queues=tx_queues,
        speed_mbps=device.speed_mbps,
        coalescing=_block(Coalescing, proposed, asked, "coalescing", device.coalescing),
        rings=_block(RingSizes, {}, asked, "rings", device.rings),
        deferral=_block(Deferral, proposed, asked, "deferral", None),
    )  # fmt: skip
    most_ns = goal.budget_ns if budget_ns is None else budget_ns
    return Plan(goal=goal.name, max_added_latency_ns=most_ns, devices=(planned,))


def _before_napctl(device: Device, netns: int, made: Mapping[tuple[object, ...], Change]) -> Device:
    """A goal proposes what differs from what is there: on what it has proposed itself it would propose nothing."""

    def former(block: V, kind: type[Change], napi_id: int | None = None) -> V:
        change = made.get((kind, netns, device.ifindex, None, napi_id))
        if change is None:
            return block
        return replace(block, **{field: getattr(change.before, field) for field, _ in settings(change.after)})

    return replace(
        device,
        coalescing=device.coalescing and former(device.coalescing, CoalescingChange),
        napis=tuple(
            replace(each, settings=former(each.settings, NapiChange, each.napi_id)) for each in device.napis
        ),
    )  # fmt: skip


def _block(
    kind: type[V], proposed: Mapping[str, Any], asked: WantedOfDevice, name: str, there: Value | None
) -> V | None:
    """What a driver has not is asked for only where its device is meant by name: it refuses it in its own words."""
    values = {field: value for field, value in proposed.items() if field in kind.__struct_fields__}
    for field, (value, entry) in asked.outright.get(name, {}).items():
        if entry.name is not None or name == "deferral" or getattr(there, field, None) is not None:
            values[field] = value
    return kind(**values) if values else None


def _too_many(device: Device, wanted: ChannelCounts | None) -> Iterator[str]:
    for field, value in settings(wanted):
        most = getattr(device.channels, f"{field}_max", None)
        if most is not None and value > most:
            yield f"{device.name}: {field}-channels {value} is above {most}, which its driver has at most"


def _rechanneled(device: Device, wanted: ChannelCounts | None, netns: int) -> Iterator[Change]:
    now = device.channels or Channels()
    before = ChannelCounts(rx=now.rx, tx=now.tx, combined=now.combined)
    asked = {field: value for field, value in settings(wanted) if getattr(before, field) != value}
    if asked:
        yield ChannelsChange(
            netns=netns, device=device.name, ifindex=device.ifindex, before=before, after=ChannelCounts(**asked)
        )


def _still_to_be_made(
    change: Change, made: Mapping[tuple[object, ...], Change], left: Collection[str]
) -> Iterator[Change]:
    """Without what is left to others, what a driver has made another value of that is still in force, and what adaptive
    coalescing changes all the time, where it is to stay on."""
    mine = made.get(object_of(change))
    adaptive = change.before
    if isinstance(change, CoalescingChange):
        adaptive = replace(change.before, **dict(settings(change.after)))
    fields = {
        field: value
        for field, value in settings(change.after)
        if setting_key(change, field) not in left
        and not _is_what_the_driver_made(mine, change, field)
        and not (drifts(field, change.before) and drifts(field, adaptive))
    }
    if fields or not dict(settings(change.after)):
        yield replace(change, after=type(change.after)(**fields))


def _is_what_the_driver_made(mine: Change | None, change: Change, field: str) -> bool:
    if not isinstance(mine, DeviceChange) or mine.found is None:
        return False
    same = getattr(mine.after, field) == getattr(change.after, field)
    return same and bool(getattr(mine.found, field) == getattr(change.before, field))
