"""Which devices were reset of late, and which of them by what napctl has set itself. Pure: times are handed in."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from napctl.attach.follow_conflicts import RESETS
from napctl.attach.objections import RESET_SECONDS
from napctl.kernel.monitor import What

__all__ = ["EVERY_DEVICE", "DeviceResets"]


EVERY_DEVICE = 0
"""For an interface index: so much happened at once that it is not known to which of them."""


@dataclass
class DeviceResets:
    """By interface index. What takes a link down takes it up again, however long that may need: some 10 s where both
    ends negotiate a speed."""

    _at: dict[int, float] = field(default_factory=dict)
    """When it was last reset."""
    _set_at: dict[int, float] = field(default_factory=dict)
    """When something of it was last set, or refused: many drivers reset their device for that."""
    _took_down: set[int] = field(default_factory=set)
    """Those whose link napctl has taken down so, and that was not up since."""

    def set_now(self, ifindexes: Iterable[int], now: float) -> None:
        """Something of these was set, or refused."""
        self._set_at |= dict.fromkeys(ifindexes, now)

    def hear(self, what: What, ifindex: int, now: float) -> bool:
        """What has happened to a device. Whether somebody else has reset it: what it refused it may take now. It is
        not asked again for what may be napctl's own doing: that would reset it again, and so for ever."""
        was_down = ifindex in self._took_down
        ours = was_down or self._was_set(ifindex, now)
        if what == "link down" and ours:
            self._took_down.add(ifindex)
        if what in ("link up", "device gone"):
            self._took_down.discard(ifindex)
        if what not in RESETS and what != "lost":
            return False
        self._at[ifindex] = now
        if was_down:  # it is over only now: new NAPI ids are told after the link
            self._set_at[ifindex] = now
        self._forget_former(now)
        return not ours

    def all_were(self, now: float) -> None:
        """The machine has slept."""
        self._at[EVERY_DEVICE] = now

    def was(self, ifindex: int, now: float) -> bool:
        """Whether it was, so lately that what is lost was lost by that."""
        return any(_is_recent(self._at.get(each), now) for each in (ifindex, EVERY_DEVICE))

    def _was_set(self, ifindex: int, now: float) -> bool:
        moments = self._set_at.values() if ifindex == EVERY_DEVICE else (self._set_at.get(ifindex),)
        return any(_is_recent(each, now) for each in moments)

    def _forget_former(self, now: float) -> None:
        for moments in (self._at, self._set_at):
            for each in [each for each, at in moments.items() if not _is_recent(at, now)]:
                del moments[each]


def _is_recent(at: float | None, now: float) -> bool:
    return at is not None and now - at < RESET_SECONDS
