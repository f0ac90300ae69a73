"""When what failed is tried again: after 1, 2, 4 … s, say. Pure: times are handed in, of one clock, in s."""

import math
from collections.abc import Collection, Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

__all__ = ["AT_A_TERMINAL", "UNATTENDED", "Backoff", "Pauses"]


Key = TypeVar("Key", bound=Hashable)


class Pauses(NamedTuple):
    """Each is twice as long as the one before."""

    first_seconds: float
    most_seconds: float

    def after(self, last_seconds: float) -> float:
        """The one that follows upon such a one; upon 0, the first."""
        return min(2 * last_seconds, self.most_seconds) if last_seconds else self.first_seconds


AT_A_TERMINAL = Pauses(1.0, 60.0)
"""While somebody waits for it."""
UNATTENDED = Pauses(1.0, 300.0)
"""In a service."""


class _Failure(NamedTuple):
    why: str
    pause_seconds: float
    due_at: float


class Backoff(Generic[Key]):
    """By object. What succeeded, is forgotten or is no more fails for the first time again; nothing else is forgotten,
    however long ago it failed."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._failed: dict[Key, _Failure] = {}

    def failed(self, key: Key, now: float, why: str = "") -> float:
        """Perhaps once more; in how many seconds it is due. Until it is, it was not tried again: that counts once."""
        before = self._failed.get(key)
        if before is not None and now < before.due_at:
            return before.due_at - now
        pause_seconds = self._pauses.after(before.pause_seconds if before is not None else 0.0)
        self._failed[key] = _Failure(why, pause_seconds, now + pause_seconds)
        return pause_seconds

    def forget(self, key: Key) -> None:
        """It succeeded, or may have been mended."""
        self._failed.pop(key, None)

    def forget_all(self) -> bool:
        """Whether there was anything."""
        had = bool(self._failed)
        self._failed = {}
        return had

    def keep_only(self, there: Collection[Key]) -> None:
        """The others are no more."""
        self._failed = {key: each for key, each in self._failed.items() if key in there}

    def is_due(self, key: Key, now: float) -> bool:
        """Whether it may be tried."""
        return key not in self._failed or now >= self._failed[key].due_at

    def standing(self, now: float) -> Mapping[Key, str]:
        """What is not to be tried yet, and why."""
        return {key: each.why for key, each in self._failed.items() if now < each.due_at}

    def next_at(self, now: float = -math.inf) -> float:
        """When the first of them is due, of those that are not due yet; infinite: none is to come."""
        return min((each.due_at for each in self._failed.values() if each.due_at > now), default=math.inf)
