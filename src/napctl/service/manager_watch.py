"""Who else sets how packets are taken on this machine: told at the start, and when one comes, goes or changes."""

import time
from collections.abc import Callable, Iterator, Sequence

from napctl.kernel.cgroups import Hierarchy, hierarchy
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.priority import in_background
from napctl.model.other_manager import KNOWN_MANAGERS, OtherManager, Touch
from napctl.model.text import each
from napctl.observe.other_managers import other_managers

__all__ = ["ManagerWatch", "changes_in_words"]


LOOK_SECONDS = 60.0
SHARE = 0.0005
"""Of one CPU that looking takes at most: of all processes the names are read."""
UNIT_SECONDS = 10.0
"""A look is not put off for that where one of their units has come or gone, which takes a few calls to see: but for
the next LOOK_SECONDS after such a look, as a unit may be one that is restarted again and again."""
MOST_NAMED = 3
"""Files, of one manager."""


class ManagerWatch:
    """`tell` receives each line."""

    def __init__(self, netns: NetworkNamespace, tell: Callable[[str], None]):
        self._netns, self._tell = netns, tell
        self._due_at = self._units_due_at = 0.0
        self._groups = hierarchy()
        self._units = running_units(self._groups)
        self._just_changed = self._changed = False
        """Whether one had come or gone the last time they were read; and whether one had before that, since the last
        look: by now its program runs under its own name."""
        self._unit_look_from = 0.0
        self.now: tuple[OtherManager, ...] = ()
        """By the last look."""

    def seconds_left(self, now: float) -> float:
        """Until look_if_due() has to look, of time.monotonic()."""
        return max(0.0, min(self._due_at, self._units_due_at) - now)

    def look_if_due(self) -> None:
        """Tell what is not as before."""
        now = time.monotonic()
        if self.seconds_left(now):
            return
        self._read_units(now)
        by_unit = self._changed and now >= self._unit_look_from
        if not by_unit and now < self._due_at:
            return
        if by_unit:
            self._unit_look_from = now + LOOK_SECONDS
        self._changed = False
        began, before = time.process_time(), self.now
        try:
            with in_background():
                self.now = other_managers(self._netns)
        except OSError as error:
            self._tell(f"who else sets devices cannot be read: {error.strerror}")
        self._due_at = time.monotonic() + max(LOOK_SECONDS, (time.process_time() - began) / SHARE)
        for line in changes_in_words(before, self.now):
            self._tell(line)

    def _read_units(self, now: float) -> None:
        if now < self._units_due_at:
            return
        before, self._units = self._units, running_units(self._groups)
        self._units_due_at = now + UNIT_SECONDS
        self._changed |= self._just_changed
        self._just_changed = self._units != before


def running_units(groups: Hierarchy | None) -> frozenset[str]:
    """Of the managers that are known: systemd makes a unit's control group as it starts, and removes it at its end."""
    if groups is None:
        return frozenset()
    places = {one.unit: groups.directory(f"/system.slice/{one.unit}") for one in KNOWN_MANAGERS}
    return frozenset(unit for unit, place in places.items() if place is not None and place.is_dir())


def changes_in_words(before: Sequence[OtherManager], now: Sequence[OtherManager]) -> Iterator[str]:
    """A line for each that has come, that touches something else, or that has gone; none for another process of it."""
    known = {one.name: one for one in before}
    for one in now:
        if one.name not in known:
            yield f"{one.name} ({one.pid}) runs too: {_what(one)}"
        elif one.touches != known[one.name].touches:
            yield f"{one.name} ({one.pid}) is configured otherwise now: {_what(one)}"
    for name in known.keys() - {one.name for one in now}:
        yield f"{name} has ended, or touches nothing any more"


def _what(manager: OtherManager) -> str:
    if not manager.touches:
        return "it touches nothing that napctl sets"
    files = dict.fromkeys(one.source for one in manager.touches if one.source)
    more = f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
    source = f" ({', '.join([*files][:MOST_NAMED])}{more})" if files else ""
    return f"it sets {each(dict.fromkeys(map(_of, manager.touches)))} {manager.how}{source}"


def _of(touch: Touch) -> str:
    """For example "coalescing of eth0"; of interrupts no device is named."""
    return f"{touch.what} of {each(touch.devices)}" if touch.devices and touch.devices != ("*",) else touch.what
