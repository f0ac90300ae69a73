"""What is to be done about the devices' settings: from what is wanted, what is in force and what is there. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napctl.change.one_change import value_words
from napctl.change.renewal import Keepable, object_of, part_of
from napctl.model.change import (
    Change,
    ChannelsChange,
    CoalescingChange,
    DeviceChange,
    NapiChange,
    Restored,
    RingsChange,
)
from napctl.model.machine import Device, Machine
from napctl.model.plan import settings
from napctl.model.settings import kernel_name
from napctl.service.device_plan import WantedChanges, called, setting_key, settings_of

__all__ = ["Outdated", "left_words", "lines_of", "lines_of_put_back", "lost_settings", "outdated"]


@dataclass(frozen=True)
class Outdated:
    """Of what is in force."""

    kept: tuple[Change, ...]
    """All of it, where only a part is not wanted any more with that as a change of its own."""
    put_back: tuple[Change, ...]
    """Of `kept`: what is not wanted any more."""
    gone: tuple[Change, ...]
    """Of `kept`: those whose object is no more."""


def lost_settings(asked: Iterable[Change], in_force: Iterable[Change]) -> Mapping[str, int]:
    """What was set as it is wanted and is not so any more: interface index by key, however many NAPI instances have
    lost it."""
    ours = {object_of(each): dict(settings(each.after)) for each in in_force}
    return {
        setting_key(change, field): getattr(change, "ifindex", 0)
        for change in asked
        for field, value in settings(change.after)
        if ours.get(object_of(change), {}).get(field) == value
    }


def outdated(
    in_force: Sequence[Change], machine: Machine, existing: Collection[int], asked: WantedChanges,
    held: Collection[int] = (),
) -> Outdated:  # fmt: skip
    """`existing`: interface indexes of all devices that there are. `held`: NAPI instances that are attached: what was
    set on them before is put back when they are not any more."""
    there = {device.ifindex: device for device in machine.devices}
    kept: list[Change] = []
    put_back: list[Change] = []
    gone: list[Change] = []
    for change in in_force:
        assert isinstance(change, Keepable)
        device = there.get(change.ifindex)
        if change.ifindex not in existing or _is_renumbered(change, device):
            gone.append(change)
        unwanted = _unwanted(change, in_force, asked)
        if change in gone or not unwanted or _must_wait(change, device, asked, held):
            kept.append(change)
        elif len(unwanted) == len(list(settings(change.after))) or unwanted == EVERYTHING:
            kept.append(change)
            put_back.append(change)
        else:
            wanted = [field for field, _ in settings(change.after) if field not in unwanted]
            put_back.append(part_of(change, unwanted, moved=False))
            kept += [part_of(change, wanted, moved=True), put_back[-1]]
    return Outdated(tuple(kept), tuple(put_back), tuple(gone))


EVERYTHING = ("",)
"""Of a change that asks for nothing, and only records what the driver has moved."""


def _is_renumbered(change: Keepable, device: Device | None) -> bool:
    """A device that is down shows no NAPI instance."""
    if not isinstance(change, NapiChange) or device is None or not device.napis:
        return False
    return change.napi_id not in {napi.napi_id for napi in device.napis}


def _unwanted(change: Keepable, in_force: Sequence[Change], asked: WantedChanges) -> Sequence[str]:
    fields = [field for field, _ in settings(change.after)]
    if fields:
        return [field for field, setting in settings_of(change) if setting not in asked.wanted]
    moved_by = (
        each for each in in_force if isinstance(each, RingsChange | ChannelsChange) and each.ifindex == change.ifindex
    )
    return () if any(setting in asked.wanted for each in moved_by for _, setting in settings_of(each)) else EVERYTHING


def _must_wait(change: Keepable, device: Device | None, asked: WantedChanges, held: Collection[int]) -> bool:
    if change.ifindex in asked.undecided or device is None:
        return True
    return isinstance(change, NapiChange) and (not device.napis or change.napi_id in held)


# In words.


def lines_of(asked: Iterable[Change], made: Iterable[Change]) -> Iterator[tuple[Change, str]]:
    """One of the changes that are told by it, and the line: of those that were asked for, what was `made` of them."""
    by_object = {object_of(each): each for each in made}
    alike: dict[tuple[str, str], list[Change]] = {}
    for change in asked:
        one = by_object.get(object_of(change))
        words = ", ".join(_words(change, one)) if one is not None else ""
        if words:
            alike.setdefault((getattr(change, "device", ""), words), []).append(change)
    for (_, words), changes in alike.items():
        yield changes[0], f"{_where(changes)}: {words}"


def lines_of_put_back(put_back: Iterable[Change], machine: Machine) -> Iterator[tuple[Change, str]]:
    """As lines_of(), of what the policy does not name any more. `machine`: as it was before."""
    devices = {device.ifindex: device for device in machine.devices}
    alike: dict[tuple[str, str], list[Change]] = {}
    for change in put_back:
        assert isinstance(change, Keepable)
        for field, value in settings(change.after):
            now = _present(change, field, devices.get(change.ifindex))
            given = getattr(getattr(change, "found", None) or change.after, field, value)
            was, name = getattr(change.before, field), kernel_name(called(change, field))
            if now in (given, was):
                words = f"{name} put back to {value_words(field, was)}, as the policy no longer names it"
            else:
                words = _left(name, value_words(field, now), value_words(field, was))
            alike.setdefault((change.device, words), []).append(change)
    for (_, words), changes in alike.items():
        yield changes[0], f"{_where(changes)}: {words}"


def left_words(row: Restored) -> str:
    """Of a setting that was not put back, as somebody else has changed it."""
    found, before = (value_words(row.setting, each) for each in (row.found, row.before))
    return f"{row.where}: {_left(kernel_name(row.setting), found, before)}"


def _left(name: str, now: str, was: str) -> str:
    return f"{name} is now {now}; somebody else changed it, so napctl leaves it (it was {was})"


def _words(change: Change, made: Change | None) -> Iterator[str]:
    """From what was there, also from what somebody else had set, to what is there."""
    for field, value in settings(change.after):
        was = value_words(field, getattr(change.before, field))
        now = value_words(field, value)
        found = getattr(getattr(made, "found", None), field, value)
        other = "" if found == value else f" (the driver made {value_words(field, found)} of it)"
        yield f"{kernel_name(called(change, field))} {was} → {now}{other}"


def _where(changes: Sequence[Change]) -> str:
    first = changes[0]
    if isinstance(first, NapiChange) and len(changes) > 1:
        return f"NAPI {first.napi_id} and {len(changes) - 1} more of {first.device}"
    if isinstance(first, CoalescingChange) and first.queue is not None:
        return first.where
    return first.where if isinstance(first, NapiChange) else getattr(first, "device", first.where)


def _present(change: Keepable, field: str, device: Device | None) -> Any:
    if device is None:
        return None
    if isinstance(change, NapiChange):
        return next((getattr(each.settings, field) for each in device.napis if each.napi_id == change.napi_id), None)
    assert isinstance(change, DeviceChange)
    blocks = {RingsChange: device.rings, ChannelsChange: device.channels}
    return getattr(blocks.get(type(change), device.coalescing), field, None)
