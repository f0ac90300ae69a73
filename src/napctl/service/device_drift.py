"""What of the devices differs from the policy's `[[device]]` entries. Pure: over a Machine that somebody took."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from napctl.model.drift import Drift, Drifted, SettingValue, drifted, joined
from napctl.model.machine import Channels, Device, Machine, Napi, attached
from napctl.model.plan import ChannelCounts, Proposal, settings
from napctl.model.policy import DeviceEntry, Origin
from napctl.model.settings import kernel_name
from napctl.plan.goals import GOALS
from napctl.plan.propose import propose, worth_planning

__all__ = ["WantedOfDevice", "channel_counts", "device_drift", "wanted_of", "with_suspension"]


@dataclass
class WantedOfDevice:
    """What the entries that match one device want of it, taken together."""

    goal: DeviceEntry | None = None
    """The last of them that has a goal."""
    outright: dict[str, dict[str, tuple[Any, DeviceEntry]]] = field(default_factory=dict)
    """By block and field: the last value that is written outright, and by whom."""

    def add(self, entry: DeviceEntry) -> None:
        """A later entry wins where it says something."""
        if entry.goal is not None:
            self.goal = entry
        for block in ("coalescing", "deferral", "rings"):
            for name, value in settings(getattr(entry, block)):
                self.outright.setdefault(block, {})[name] = value, entry
        if entry.channels is not None:
            self.outright.setdefault("channels", {})["combined"] = entry.channels, entry

    def has(self, name: str) -> bool:
        """Whether a setting that a goal may propose is written outright."""
        return any(name in self.outright.get(block, {}) for block in ("coalescing", "deferral"))


def wanted_of(entries: Iterable[DeviceEntry], machine: Machine) -> Mapping[str, WantedOfDevice]:
    """By the device's name here, of each that an entry matches; `all` is hardware that is up."""
    hardware = {device.name for device in worth_planning(machine.devices)}
    found: dict[str, WantedOfDevice] = {}
    for entry in entries:
        for device in machine.devices:
            if _matches(entry, device, hardware):
                found.setdefault(device.name, WantedOfDevice()).add(entry)
    return found


def channel_counts(has: Channels | None, wanted: int | None, entry: DeviceEntry | None) -> ChannelCounts | None:
    """`channels` of the entry as the driver groups its queues: combined where it has such, else RX and TX alike. None:
    nothing is wanted, or of a class of devices this one has none."""
    if wanted is None or (has is None and entry is not None and entry.name is None):
        return None
    if has is None or has.combined_max or not (has.rx_max or has.tx_max):
        return ChannelCounts(combined=wanted)
    return ChannelCounts(rx=wanted if has.rx_max else None, tx=wanted if has.tx_max else None)


def _matches(entry: DeviceEntry, device: Device, hardware: Collection[str]) -> bool:
    if entry.name is not None:
        return entry.name in (device.name, *device.alternative_names)
    return device.name in hardware if entry.all else device.driver == entry.driver


def device_drift(entries: Sequence[DeviceEntry], machine: Machine, held: Collection[int] = ()) -> Drift:
    """`held`: ids of the NAPI instances that are attached, whose deferral is the attachment's."""
    names = {name for device in machine.devices for name in (device.name, *device.alternative_names)}
    absent = (entry for entry in entries if entry.name is not None and entry.name not in names)
    parts = [Drift(waiting=tuple(f"{entry.name}: there is no such device ({entry.origin})" for entry in absent))]
    devices = {device.name: device for device in machine.devices}
    parts += [_of_device(devices[name], wanted, machine, held) for name, wanted in wanted_of(entries, machine).items()]
    return joined(*parts)


def _of_device(device: Device, wanted: WantedOfDevice, machine: Machine, held: Collection[int]) -> Drift:
    if not device.up:
        return Drift(waiting=(f"{device.name}: it is down",))
    outright = {block: values for block, values in wanted.outright.items() if block != "deferral"}
    if "channels" in outright:
        (number, entry) = outright["channels"]["combined"]
        counts = channel_counts(device.channels, number, entry) or ChannelCounts(combined=number)
        outright["channels"] = {field: (value, entry) for field, value in settings(counts)}
    parts = [_outright(device, block, values) for block, values in outright.items()]
    parts.append(_deferral(device, wanted.outright.get("deferral", {}), held))
    if wanted.goal is not None:
        parts.append(_of_goal(device, wanted.goal, wanted, machine, held))
    return joined(*parts)


def _outright(device: Device, block: str, wanted: Mapping[str, tuple[Any, DeviceEntry]]) -> Drift:
    """Of what a device has as a whole."""
    parts = []
    for name, (value, entry) in wanted.items():
        found: SettingValue = getattr(getattr(device, block), name, None)
        called = name if block == "coalescing" else f"{name}_{block}"  # rx_rings, combined_channels
        if found is None and entry.name is None:  # of a class of devices not each has everything
            parts.append(Drift(notes=(f"{device.name}: its driver has no {kernel_name(called)} ({entry.origin})",)))
        elif found != value:
            parts.append(Drift(differences=(drifted(device.name, called, found, value, entry.origin),)))
    return joined(*parts)


def _deferral(device: Device, wanted: Mapping[str, tuple[Any, DeviceEntry]], held: Collection[int]) -> Drift:
    """Of each NAPI instance that is not attached."""
    differences: list[Drifted] = []
    for name, (value, entry) in wanted.items():
        by_value: dict[int | None, list[Napi]] = {}
        for napi in device.napis:
            if napi.napi_id not in held and not attached(napi) and getattr(napi.settings, name) != value:
                by_value.setdefault(getattr(napi.settings, name), []).append(napi)
        for found, napis in by_value.items():
            differences.append(drifted(_instances(device, napis), name, found, value, entry.origin))
    return Drift(differences=tuple(differences))


def _instances(device: Device, napis: Sequence[Napi]) -> str:
    if len(napis) == len(device.napis) > 1:
        return device.name
    first = f"NAPI {napis[0].napi_id}"
    return f"{first} of {device.name}" if len(napis) == 1 else f"{first} and {len(napis) - 1} more of {device.name}"


def _of_goal(
    device: Device, entry: DeviceEntry, wanted: WantedOfDevice, machine: Machine, held: Collection[int]
) -> Drift:
    """What `plan` would propose now; what is written outright it does not get to say."""
    assert entry.goal is not None
    seen = replace(machine, devices=(with_suspension(device, held),))
    advice = propose(seen, None, GOALS[entry.goal], entry.max_added_latency_ns, {})
    proposals = [each for each in advice.proposals if not wanted.has(each.setting)]
    return Drift(
        differences=tuple(_proposed(each, entry.origin) for each in proposals),
        notes=tuple(f"{each} ({entry.origin})" for each in advice.missing),
    )


def with_suspension(device: Device, held: Collection[int]) -> Device:
    """An attachment that adapts may have its instances on interrupts for now; they are its own all the same."""
    if not any(napi.napi_id in held for napi in device.napis):
        return device
    return replace(
        device,
        napis=tuple(
            replace(napi, settings=replace(napi.settings, irq_suspend_timeout_ns=1)) if napi.napi_id in held else napi
            for napi in device.napis
        ),
    )


def _proposed(proposal: Proposal, origin: Origin) -> Drifted:
    now = "differing" if proposal.now is None else proposal.now
    return drifted(proposal.device, proposal.setting, now, proposal.proposed, origin)
