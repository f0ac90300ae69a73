"""Which devices were reset of late, and which of them by what napctl has set itself. Pure: times are handed in."""

import math
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
    _set_at: float = -math.inf
    """When something was last set, or refused: many drivers reset their device for that, and with it the other ports of
    its adapter, its bond and its VLANs."""
    _took_down: set[int] = field(default_factory=set)
    """Those whose link napctl has taken down so, and that was not up since."""
    _up_at: dict[int, float] = field(default_factory=dict)
    """When the link of one of these was up again."""

    def set_now(self, now: float) -> None:
        """Something was set, or refused."""
        self._set_at = now

    def hear(self, what: What, ifindex: int, now: float) -> bool:
        """What has happened to a device. Whether somebody else has reset it: what it refused it may take now. It is
        not asked again for what may be napctl's own doing: that would reset it again, and so for ever."""
        was_down = ifindex in self._took_down
        ours = was_down or self._was_set(ifindex, now)
        if what == "link down" and ours:
            self._took_down.add(ifindex)
        if what in ("link up", "device gone"):
            self._took_down.discard(ifindex)
        if what == "lost":
            self.forget_links()
        if what not in RESETS and what != "lost":
            return False
        self._at[ifindex] = now
        if was_down:  # it is over only now: new NAPI ids are told after the link
            self._up_at[ifindex] = now
        self._forget_former(now)
        return not ours

    def forget_links(self) -> None:
        """It may not be told when those that napctl has taken down are up."""
        self._took_down.clear()

    def all_were(self, now: float) -> None:
        """The machine has slept."""
        self._at[EVERY_DEVICE] = now

    def was(self, ifindex: int, now: float) -> bool:
        """Whether it was, so lately that what is lost was lost by that."""
        return any(_is_recent(self._at.get(each), now) for each in (ifindex, EVERY_DEVICE))

    def _was_set(self, ifindex: int, now: float) -> bool:
        up_at = self._up_at.values() if ifindex == EVERY_DEVICE else (self._up_at.get(ifindex),)
        return any(_is_recent(each, now) for each in (self._set_at, *up_at))

    def _forget_former(self, now: float) -> None:
        for moments in (self._at, self._up_at):
            for each in [each for each, at in moments.items() if not _is_recent(at, now)]:
                del moments[each]


def _is_recent(at: float | None, now: float) -> bool:
    return at is not None and now - at < RESET_SECONDS
