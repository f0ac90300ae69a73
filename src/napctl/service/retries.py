"""When what went wrong is tried again, and what somebody else insists on is left to him. Pure: times are handed in."""

from dataclasses import dataclass, field

__all__ = ["FIRST_SECONDS", "Backoff", "Objections"]


FIRST_SECONDS, MOST_SECONDS = 1.0, 300.0
INSISTED, WITHIN_SECONDS = 3, 600.0
"""Who puts a setting back so many times in such a time means it."""


@dataclass
class Backoff:
    """By object: 1, 2, 4 … s after one failure upon the other, and never longer than five minutes."""

    _failed: dict[str, tuple[int, float]] = field(default_factory=dict)
    """How often, one after the other, and when it is due again."""

    def failed(self, key: str, now: float) -> float:
        """Once more; in how many seconds it is due again."""
        times, _ = self._failed.get(key, (0, now))
        pause = min(FIRST_SECONDS * 2.0 ** min(times, 30), MOST_SECONDS)
        self._failed[key] = times + 1, now + pause
        return pause

    def succeeded(self, key: str) -> None:
        """The next failure is the first one again."""
        self._failed.pop(key, None)

    def is_due(self, key: str, now: float) -> bool:
        """Whether it may be tried."""
        return self._failed.get(key, (0, now))[1] <= now

    def seconds_left(self, now: float) -> float:
        """Until the next of those that have failed is due; infinite if there is none."""
        return min((max(0.0, due - now) for _, due in self._failed.values()), default=float("inf"))


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
