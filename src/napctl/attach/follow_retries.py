"""What could not be attached, and when to try again: after 1, 2, 4 … 60 s, say. No clock of its own."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["HARMED", "MOST_SECONDS", "REFUSED_SECONDS", "Refusals"]


REFUSED_SECONDS = 1.0
"""Before the second attempt at what was refused, where that does no harm."""
MOST_SECONDS = 60.0
"""Before any attempt at it, at most, while somebody waits at a terminal."""
HARMED = (600.0, 86400.0)
"""The same of what was attached and came to no good."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class _Refusal:
    why: str
    wait: float
    """s, before it is tried again."""
    until: float


class Refusals(Generic[Key]):
    """Times are those of one clock, in s."""

    def __init__(self, waits: tuple[float, float] = (REFUSED_SECONDS, MOST_SECONDS)) -> None:
        self._first, self._most = waits
        self._refused: dict[Key, _Refusal] = {}

    def __bool__(self) -> bool:
        return bool(self._refused)

    def add(self, key: Key, why: str, now: float) -> None:
        """It was refused, perhaps once more. While it is not to be tried again, nothing can refuse it."""
        before = self._refused.get(key)
        if before is not None and now < before.until:
            return
        wait = self._first if before is None else min(2 * before.wait, self._most)
        self._refused[key] = _Refusal(why, wait, now + wait)

    def forget(self, key: Key) -> None:
        """It was not refused this time."""
        self._refused.pop(key, None)

    def keep_only(self, there: Collection[Key]) -> None:
        """The others are no more."""
        self._refused = {key: each for key, each in self._refused.items() if key in there}

    def standing(self, now: float) -> Mapping[Key, str]:
        """What is not to be tried yet, and why."""
        return {key: each.why for key, each in self._refused.items() if now < each.until}

    def next_at(self, now: float) -> float | None:
        """When the next of them is to be tried again."""
        return min((each.until for each in self._refused.values() if each.until > now), default=None)
