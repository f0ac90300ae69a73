"""What the service has decided, and why: a line each in its log, and the last of each object for `napctl why`."""

from collections import OrderedDict, deque
from collections.abc import Callable

from napctl.model.snapshot import Decision
from napctl.model.value import Value

__all__ = ["Decisions", "ServiceDecision"]


KEPT = 32
"""Of each object."""
MOST_OBJECTS = 256
"""A machine has fewer targets and devices; those of which nothing was heard for longest are forgotten."""


class ServiceDecision(Value, frozen=True, kw_only=True):
    """One line."""

    unix_ns: int
    about: str
    """A target as the policy names it, or a device; empty: the service itself."""
    text: str
    """What was decided, with its reason and figures."""
    kind: Decision | None = None
    """By which it is counted in metrics; None: it only tells what has happened."""


class Decisions:
    """`write` receives each that is not the one before once more."""

    def __init__(self, write: Callable[[ServiceDecision], None]):
        self._write = write
        self._kept: OrderedDict[str, deque[ServiceDecision]] = OrderedDict()
        self.made: dict[Decision, int] = {}
        """Since the service began, also those that were not told again."""

    def made_now(self, decision: ServiceDecision) -> None:
        """One more."""
        if decision.kind is not None:
            self.made[decision.kind] = self.made.get(decision.kind, 0) + 1
        of_it = self._kept.setdefault(decision.about, deque(maxlen=KEPT))
        self._kept.move_to_end(decision.about)
        while len(self._kept) > MOST_OBJECTS:
            self._kept.popitem(last=False)
        if of_it and of_it[-1].text == decision.text:
            return
        of_it.append(decision)
        self._write(decision)

    def about(self, name: str) -> tuple[ServiceDecision, ...]:
        """The last ones of one object, the newest last."""
        return tuple(self._kept.get(name, ()))

    @property
    def objects(self) -> tuple[str, ...]:
        """Of which there are any."""
        return tuple(self._kept)
