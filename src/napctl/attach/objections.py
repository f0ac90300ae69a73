"""What somebody else puts back again and again, and what is therefore left to him. Pure: times are handed in."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from napctl.model.change import Change, NapiChange

__all__ = ["INSISTED", "RESET_SECONDS", "WITHIN_SECONDS", "LostSettings", "Objections"]


INSISTED, WITHIN_SECONDS = 3, 600.0
"""Who puts a setting back so many times in such a time means it."""
RESET_SECONDS = 5.0
"""A setting that is lost within such a time after its device was reset was lost by that, and is nobody's objection."""


@dataclass
class Objections:
    """By setting: how often somebody else has changed it back."""

    _at: dict[str, tuple[float, ...]] = field(default_factory=dict)
    _left: set[str] = field(default_factory=set)

    def heard(self, key: str, now: float) -> bool:
        """Somebody has changed it once more. Whether it is to be left to him, from now on."""
        times = (*(each for each in self._at.get(key, ()) if now - each < WITHIN_SECONDS), now)
        self._at[key] = times
        if len(times) >= INSISTED:
            self._left.add(key)
            del self._at[key]
        return key in self._left

    def leave(self, keys: frozenset[str]) -> None:
        """These are left to him, as was found out before."""
        self._left |= keys

    def forget(self) -> None:
        """There is another policy, or somebody asks for all of it: everything is tried anew."""
        self._at.clear()
        self._left.clear()

    @property
    def left(self) -> frozenset[str]:
        """What is left to others."""
        return frozenset(self._left)


class LostSettings:
    """What of one target was lost, though nothing has reset it: somebody else has put it back."""

    def __init__(self, objections: Objections, target: str):
        self._objections, self._of = objections, f" for {target}"
        self._heard: set[str] = set()
        """What was lost, and has not been made again since: it is heard once."""
        self._reset_at: dict[int, float] = {}
        """When a device was last reset, by interface index."""

    def reset(self, ifindex: int, now: float) -> None:
        """A device was."""
        self._reset_at = {each: at for each, at in self._reset_at.items() if now - at < RESET_SECONDS}
        self._reset_at[ifindex] = now

    def hear(self, lost: Iterable[Change], now: float) -> list[Change]:
        """Those among what was lost that are left to him from now on."""
        found = []
        for change in lost:
            key = change.where + self._of
            reset_at = self._reset_at.get(change.ifindex, float("-inf")) if isinstance(change, NapiChange) else None
            if key in self._heard or (reset_at is not None and now - reset_at < RESET_SECONDS):
                continue
            self._heard.add(key)
            if self._objections.heard(key, now):
                found.append(change)
        return found

    def made(self, changes: Iterable[Change]) -> None:
        """These were made, perhaps once more."""
        self._heard -= {each.where + self._of for each in changes}

    @property
    def left(self) -> Collection[str]:
        """What is left to him, as a change says where."""
        return {key.removesuffix(self._of) for key in self._objections.left if key.endswith(self._of)}
