"""What somebody else puts back again and again, and what is therefore left to him. Pure: times are handed in."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from napctl.model.change import Change, InstanceChange

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
        self._at = {each: times for each, times in self._at.items() if now - times[-1] < WITHIN_SECONDS}
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

    def forget_if(self, gone: Callable[[str], bool]) -> None:
        """Settings of what is not there any more: nobody can object to them, and its number may be given to another."""
        self._at = {each: times for each, times in self._at.items() if not gone(each)}
        self._left = {each for each in self._left if not gone(each)}

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
        self._reset_at: dict[tuple[int, int], float] = {}
        """When a device was last reset, by network namespace and interface index."""
        self._all_reset_at = float("-inf")

    def reset(self, device: tuple[int, int], now: float) -> None:
        """A device was, by network namespace and interface index."""
        self._reset_at = {each: at for each, at in self._reset_at.items() if now - at < RESET_SECONDS}
        self._reset_at[device] = now

    def reset_all(self, now: float) -> None:
        """Any device may have been."""
        self._all_reset_at = now

    def hear(self, lost: Iterable[Change], now: float) -> list[Change]:
        """Those among what was lost that are left to him from now on."""
        found = []
        for change in lost:
            key = change.where + self._of
            if key in self._heard or (isinstance(change, InstanceChange) and self._was_reset(change, now)):
                continue
            self._heard.add(key)
            if self._objections.heard(key, now):
                found.append(change)
        return found

    def _was_reset(self, change: InstanceChange, now: float) -> bool:
        at = max(self._all_reset_at, self._reset_at.get((change.netns, change.ifindex), float("-inf")))
        return now - at < RESET_SECONDS

    def forget_if(self, gone: Callable[[str], bool]) -> None:
        """What has gone, as a change says where."""

        def is_mine_and_gone(key: str) -> bool:
            return key.endswith(self._of) and gone(key.removesuffix(self._of))

        self._objections.forget_if(is_mine_and_gone)
        self._heard = {each for each in self._heard if not is_mine_and_gone(each)}

    def made(self, changes: Iterable[Change]) -> None:
        """These were made, perhaps once more."""
        self._heard -= {each.where + self._of for each in changes}

    @property
    def left(self) -> Collection[str]:
        """What is left to him, as a change says where."""
        return {key.removesuffix(self._of) for key in self._objections.left if key.endswith(self._of)}
