"""When what went wrong is tried again. Pure: times are handed in."""

from dataclasses import dataclass, field

__all__ = ["FIRST_SECONDS", "MOST_SECONDS", "Backoff"]


FIRST_SECONDS, MOST_SECONDS = 1.0, 300.0


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
