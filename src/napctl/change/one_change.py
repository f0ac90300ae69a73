"""Making one change, only upon the former value that was recorded: write, read back. And undoing it: only what still
has the value that napctl gave it."""

import os
from collections.abc import Mapping
from typing import Any, Literal

from msgspec.structs import replace

from napctl.change.objects import Places, SettingsBlock, opened
from napctl.kernel import capabilities
from napctl.kernel.netlink import Refused
from napctl.model.change import (
    Change,
    DeviceChange,
    EpollChange,
    IoUringChange,
    PollerChange,
    Restored,
    SocketChange,
    SteeringChange,
    ThreadChange,
)
from napctl.model.errors import BadInput, ChangedMeanwhile, NapctlError, NotPermitted, Unsupported
from napctl.model.machine import Coalescing, levels_text
from napctl.model.settings import DISABLED, kernel_name
from napctl.model.storm_change import StormChange
from napctl.model.units import duration_text
from napctl.model.value import Value

__all__ = [
    "all_gone",
    "altered",
    "drifts",
    "explain",
    "found_own",
    "make",
    "may_have_either",
    "refuse_changed",
    "settled",
    "side_effects",
    "touched",
    "undo",
    "value_words",
]


Outcome = Literal["restored", "unchanged", "left", "gone"]
Upon = Literal["former", "former or own", "anything"]
"""What a setting may have when it is changed: its former value; or already napctl's own, as in turns; or any, where an
earlier change of the same transaction made the driver move it."""
DRIFTING = {"rx_usecs": "use_adaptive_rx", "rx_max_frames": "use_adaptive_rx", "tx_usecs": "use_adaptive_tx",
            "tx_max_frames": "use_adaptive_tx"}  # fmt: skip
"""What adaptive coalescing itself changes all the time, and the switch of that: no trace of anybody's hand."""


def make(change: Change, places: Places, upon: Upon = "former") -> Change:
    """Make it and read back. Of a device it returns what the driver made of it (`found`), which may be another value.

    Raises ChangedMeanwhile, with nothing written, if somebody else has changed what it is to change; Unsupported naming
    the setting that was refused, NotPermitted, or BadInput if its object is gone.
    """
    wanted = {name: getattr(change.after, name) for name in touched(change)}
    try:
        with opened(change, places) as target:
            if target is None:
                raise BadInput(f"{change.where}: gone meanwhile")
            _refuse_changed(change, target.read(), upon)
            try:
                if wanted:
                    target.write(wanted)
            except (OSError, Refused) as error:
                raise _refusal(change, target, wanted, error) from None
            found = target.read()
    except (OSError, Refused) as error:
        raise explain(change, error) from None
    if found is None:
        raise BadInput(f"{change.where}: gone meanwhile")
    if isinstance(change, DeviceChange):
        return replace(change, found=found)
    for name, value in wanted.items():
        if getattr(found, name) != value:
            raise Unsupported(f"{change.where}: {name} was set to {value} and reads back as {getattr(found, name)}")
    return change


def refuse_changed(change: Change, places: Places) -> None:
    """Raises ChangedMeanwhile if a setting has not its former value any more, and what make() raises."""
    try:
        with opened(change, places) as target:
            _refuse_changed(change, target.read() if target else None, "former")
    except (OSError, Refused) as error:
        raise explain(change, error) from None


def found_own(change: Change, places: Places) -> Change:
    """A change in force with what its object has now, where it may still have the values from before it was exchanged.

    Raises ChangedMeanwhile if a setting has neither, and what make() raises.
    """
    if not may_have_either(change):
        return change
    try:
        with opened(change, places) as target:
            now = target.read() if target else None
            in_force = replace(change, before=change.after)
            _refuse_changed(in_force, now, "former or own")
    except (OSError, Refused) as error:
        raise explain(change, error) from None
    return settled(
        replace(change, after=replace(change.after, **{name: getattr(now, name) for name in touched(in_force)}))
    )


def may_have_either(change: Change) -> bool:
    """Whether it may still have the values from before it was exchanged, as it was away or refused half-way."""
    return getattr(change, "leaving", None) is not None


def settled(change: Change) -> Change:
    """Without what it was exchanged for: what it has is known."""
    return replace(change, leaving=None) if may_have_either(change) else change


def undo(change: Change, places: Places, *, force: bool = False, interrupted: bool = False) -> list[Restored]:
    """Restore the former value of each setting; safe to repeat, and after any part of the change was made.

    A setting that no longer has the value which napctl gave it was changed by somebody else and is left alone, unless
    `force`. If the change was `interrupted`, it is not known what the driver made of it: then a device's coalescing or
    rings, which the driver was given as a whole, are restored as a whole. Raises NapctlError if the kernel refuses.
    """
    try:
        with opened(change, places) as target:
            now = target.read() if target else None
            if target is None or now is None:
                return all_gone(change)
            whole = interrupted and isinstance(change, DeviceChange)
            rows = [_settle(change, name, now, always=force or whole) for name in _names(change, now, whole=whole)]
            if isinstance(change, IoUringChange) and any(row.outcome == "left" for row in rows):
                return _all_left(rows)
            back = {row.setting: row.before for row in rows if row.outcome == "restored"}
            if back:
                target.write(back)
                _check(change, target, back)
    except (OSError, Refused) as error:
        raise explain(change, error) from None
    return _with_its_thread(rows) if isinstance(change, ThreadChange) else rows


def _all_left(rows: list[Restored]) -> list[Restored]:
    """Who has registered something else has registered all of it."""
    return [replace(each, outcome="left") if each.outcome == "restored" else each for each in rows]


def _with_its_thread(rows: list[Restored]) -> list[Restored]:
    """A thread that ends takes with it what somebody else had made of it."""
    ended = any(each.setting == "threaded" and each.outcome == "restored" and each.before == DISABLED for each in rows)
    return [replace(each, outcome="gone", found=None) if ended and each.outcome == "left" else each for each in rows]


def all_gone(change: Change) -> list[Restored]:
    """What undoing comes to when the object is gone, or after a reboot, which has undone everything."""
    return [_row(change, name, "gone", None) for name in touched(change)]


def touched(change: Change) -> list[str]:
    """Names of the settings that a change asks for, or asked for before it was exchanged."""
    names = change.after.__struct_fields__
    if isinstance(change, PollerChange):  # its parameters are set together: those that are to differ
        return [name for name in names if any(own != getattr(change.before, name) for own in _own(change, name))]
    return [name for name in names if getattr(change.after, name) is not None]


def side_effects(change: Change) -> list[str]:
    """Names of the settings that the driver changed though it was not asked to."""
    found = getattr(change, "found", None)
    return _differing(change, found) if found is not None else []


def altered(change: Change) -> list[str]:
    """Names of the settings of which the driver made another value than it was asked for."""
    found = getattr(change, "found", None)
    names = touched(change) if found is not None else []
    return [name for name in names if getattr(found, name) != getattr(change.after, name) and not drifts(name, found)]


def explain(change: Change, error: OSError | Refused) -> NapctlError:
    """The kernel's refusal as one line for a person."""
    if isinstance(error, PermissionError) or getattr(error, "exit_status", None) == NotPermitted.exit_status:
        return NotPermitted(f"{change.where}: not permitted; {_why_not_permitted(change)}")
    if isinstance(error, ProcessLookupError | FileNotFoundError):
        return BadInput(f"{change.where}: gone meanwhile")
    return Unsupported(f"{change.where}: {_words(error)}")


def value_words(name: str, value: Any) -> str:
    """A value of a setting, for messages."""
    return duration_text(value) if name.endswith("_ns") and value is not None else _plain(value)


def _refuse_changed(change: Change, now: Value | None, upon: Upon) -> None:
    """Of what a driver is given as a whole, all counts: what somebody else has set beside it would be taken for a side
    effect, and undone. What a group of listeners had before, the kernel tells nobody."""
    if upon == "anything" or isinstance(change, SteeringChange):
        return
    names = touched(change)
    if isinstance(change, DeviceChange):
        now = now or type(change.before)()  # a driver that tells nothing refuses in its own words
        names += _differing(change, now)
    if now is None:
        raise BadInput(f"{change.where}: gone meanwhile")
    for name in names:
        before, current = getattr(change.before, name), getattr(now, name)
        drifted = drifts(name, change.before) and drifts(name, now)
        own = (before, *_own(change, name)) if upon == "former or own" else (before,)
        if current not in own and not drifted:
            was, now_is = value_words(name, before), value_words(name, current)
            raise ChangedMeanwhile(
                f"{change.where}: {kernel_name(name)} is now {now_is}; it was {was} when napctl looked, so somebody "
                "else has changed it: look again"
            )


def _why_not_permitted(change: Change) -> str:
    if isinstance(change, ThreadChange):
        return "changing it needs CAP_NET_ADMIN in the initial user namespace, and CAP_SYS_NICE"
    if not isinstance(change, PollerChange | SteeringChange):
        return "changing it needs CAP_NET_ADMIN in the initial user namespace"
    held = capabilities.held()
    if isinstance(change, SocketChange) and "CAP_NET_ADMIN" not in held:
        return "changing it needs CAP_NET_ADMIN"
    return capabilities.why_refused(held, everywhere=capabilities.in_initial_user_namespace())


def _refusal(change: Change, target: SettingsBlock, wanted: Mapping[str, Any], error: OSError | Refused) -> NapctlError:
    """Of settings that were written at once; if a driver does not say which of them it refuses, that is found out."""
    why = explain(change, error)
    if isinstance(change, EpollChange | IoUringChange | StormChange) or why.exit_status != Unsupported.exit_status:
        return why
    named = getattr(error, "attribute", None)
    names = [name for name in wanted if kernel_name(name) == named] or _refused_alone(target, wanted)
    asked = ", ".join(f"{kernel_name(name)} {_plain(wanted[name])}" for name in names)
    who = "driver" if isinstance(change, DeviceChange) else "kernel"
    return Unsupported(f"{change.where}: the {who} refuses {asked}: {_words(error)}")


def _refused_alone(target: SettingsBlock, wanted: Mapping[str, Any]) -> list[str]:
    """The settings that are refused on their own; all if each is taken alone and only the combination is not."""
    refused = []
    for name, value in wanted.items() if len(wanted) > 1 else ():
        try:
            target.write({name: value})
        except (OSError, Refused):
            refused.append(name)
    return refused or list(wanted)


def _names(change: Change, now: Value, *, whole: bool) -> list[str]:
    """The settings that undoing looks at. What drifted before cannot be told from what was changed."""
    others = _differing(change, now) if whole else side_effects(change)
    return [name for name in [*touched(change), *others] if not drifts(name, change.before)]


def _differing(change: Change, now: Value) -> list[str]:
    """Settings that the change does not ask for and that are not as they were."""
    asked = set(touched(change))
    names = [name for name in change.before.__struct_fields__ if name not in asked]
    return [
        name for name in names
        if getattr(now, name) != getattr(change.before, name)
        and not drifts(name, change.before) and not drifts(name, now)
    ]  # fmt: skip


def drifts(name: str, block: object) -> bool:
    """Whether adaptive coalescing itself changes a setting, in a block that has it on."""
    return isinstance(block, Coalescing) and name in DRIFTING and getattr(block, DRIFTING[name]) is True


def _settle(change: Change, name: str, now: Value, *, always: bool) -> Restored:
    before, current = getattr(change.before, name), getattr(now, name)
    if current == before:
        return _row(change, name, "unchanged", current)
    return _row(change, name, "restored" if always or current in _own(change, name) else "left", current)


def _own(change: Change, name: str) -> tuple[Any, ...]:
    """The value that napctl gave a setting, or is about to; and that which it may still have from before."""
    given = getattr(change, "found", None) or change.after
    return tuple(getattr(block, name) for block in (given, getattr(change, "leaving", None)) if block is not None)


def _check(change: Change, target: SettingsBlock, back: Mapping[str, Any]) -> None:
    again = target.read()
    for name, value in back.items():
        if again is not None and getattr(again, name) != value:
            raise Unsupported(f"{change.where}: {name} was set back to {value} and reads {getattr(again, name)}")


def _row(change: Change, name: str, outcome: Outcome, found: Any) -> Restored:
    return Restored(where=change.where, setting=name, outcome=outcome, before=getattr(change.before, name), found=found)


def _words(error: OSError | Refused) -> str:
    if isinstance(error, Refused):
        return error.text or os.strerror(error.errno)
    return error.strerror or os.strerror(error.errno or 0)


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return levels_text(value)
    return str({True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value)
