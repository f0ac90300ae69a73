"""What could not be attached, and when to try again: after 1, 2, 4 … 60 s. No clock of its own."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

FIRST_SECONDS, MOST_SECONDS = 1.0, 60.0
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class _Refusal:
    why: str
    wait: float
    """s, before it is tried again."""
    until: float


class Refusals(Generic[Key]):
    """Times are those of one clock, in s."""

    def __init__(self) -> None:
        self._refused: dict[Key, _Refusal] = {}

    def add(self, key: Key, why: str, now: float) -> bool:
        """It was refused, perhaps once more. Whether that is new: there was no refusal, or for another reason."""
        before = self._refused.get(key)
        wait = FIRST_SECONDS if before is None else min(2 * before.wait, MOST_SECONDS)
        self._refused[key] = _Refusal(why, wait, now + wait)
        return before is None or before.why != why

    def forget(self, key: Key) -> None:
        """It was not refused this time."""
        self._refused.pop(key, None)

    def keep_only(self, there: Collection[Key]) -> None:
        """The others are no more."""
        self._refused = {key: each for key, each in self._refused.items() if key in there}

    def standing(self, now: float) -> Mapping[Key, str]:
        """What is not to be tried yet, and why."""
        return {key: each.why for key, each in self._refused.items() if now < each.until}

    def next_at(self) -> float | None:
        """When the first of them is to be tried again."""
        return min((each.until for each in self._refused.values()), default=None)
