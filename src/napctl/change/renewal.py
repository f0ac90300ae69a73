"""What is recorded of a change in force that is made once more, and of one of which a part is undone. Pure.

What is put back in the end is what was there before the first of them.
"""

from collections.abc import Collection, Sequence
from typing import Any

from msgspec.structs import replace

from napctl.model.change import Change, DeviceChange, InstanceChange
from napctl.model.plan import settings

__all__ = ["Keepable", "joined", "object_of", "part_of", "renewed"]


Keepable = InstanceChange | DeviceChange
"""What is kept of a device."""


def object_of(change: Change) -> tuple[object, ...]:
    """What one of a device is made on: two changes of one object are to be one."""
    places = ("netns", "ifindex", "queue", "napi_id")
    return (type(change), *(getattr(change, each, None) for each in places))


def joined(changes: Sequence[Change], more: Sequence[Change]) -> tuple[Change, ...]:
    """All of them, of each object of a device one."""
    found = list(changes)
    for each in more:
        same = (number for number, one in enumerate(found) if object_of(one) == object_of(each))
        place = next(same, None) if isinstance(each, Keepable) else None
        if place is None:
            found.append(each)
        else:
            earlier = found[place]
            assert isinstance(earlier, Keepable)
            assert isinstance(each, Keepable)
            found[place] = renewed(earlier, each)
    return tuple(found)


def renewed(earlier: Keepable, anew: Keepable) -> Keepable:
    """Both as one: `anew` was made (a device's: with what the driver made of it) upon what had become of `earlier`.

    A setting that somebody else has changed meanwhile, and that was not set again, stays known as his.
    """
    asked, again = dict(settings(earlier.after)), dict(settings(anew.after))
    after = replace(anew.after, **(asked | again))
    if isinstance(anew, InstanceChange):
        return replace(anew, before=replace(anew.before, **dict(settings(earlier.before))), after=after, leaving=None)
    assert not isinstance(earlier, InstanceChange)
    given = earlier.found or earlier.after
    before: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for name in anew.before.__struct_fields__:
        former = getattr(earlier.before, name)
        if name not in asked and (earlier.found is None or getattr(given, name) == former):
            continue  # it was not napctl that has changed it
        before[name] = former
        moved = anew.found is not None and getattr(anew.found, name) != getattr(anew.before, name)
        if name not in again and not moved:
            found[name] = getattr(given, name)
    return replace(
        anew,
        before=replace(anew.before, **before),
        after=after,
        found=None if anew.found is None else replace(anew.found, **found),
    )


def part_of(change: Keepable, names: Collection[str], *, moved: bool) -> Keepable:
    """With these of the settings that it asks for. `moved`: with what the driver has changed beside them, too."""
    others = [name for name, _ in settings(change.after) if name not in names]
    after = replace(change.after, **dict.fromkeys(others))
    if isinstance(change, InstanceChange):
        return replace(change, before=replace(change.before, **dict.fromkeys(others)), after=after)
    if change.found is None:
        return replace(change, after=after)
    given = change.found if moved else change.before
    kept = {name: getattr(change.found, name) for name in names} | {
        name: getattr(change.before, name) for name in others
    }
    return replace(change, after=after, found=replace(given, **kept))
