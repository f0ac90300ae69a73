"""In which mode a followed target is attached, where that is left to napctl: from one attachment to the next."""

from napctl.attach.attach_options import AttachOptions, in_mode
from napctl.attach.attach_target import chosen_options
from napctl.attach.follow_memory import Known
from napctl.attach.follow_way import FollowWay
from napctl.attach.follow_words import Words
from napctl.model.change import Transaction
from napctl.model.modes import OF_INSTANCES, mode_of, spins
from napctl.model.next_best import NextBest

__all__ = ["FollowedMode"]


class FollowedMode:
    """Of one target: end() stands after each attachment."""

    def __init__(self, asked: AttachOptions, known: Known, way: FollowWay, words: Words):
        self._asked, self._known, self._way, self._words = asked, known, way, words
        self.options = asked
        """With the mode that was chosen, once one was."""

    @property
    def is_open(self) -> bool:
        """Whether another one than suspension may be chosen."""
        return self.options.mode == "auto"

    def adopt(self, taken: Transaction) -> None:
        """It stands, and goes on in its mode."""
        mode = mode_of(taken.changes)
        if self.is_open and mode in OF_INSTANCES:
            self._become(in_mode(self._asked, mode, spins=spins(taken.changes)))

    def take_best(self, found: NextBest | None) -> None:
        """That mode, where one is better than what is there; None: no modes were tried."""
        if found is None:
            return
        if found.best is None:
            self._words.say(f"waiting: no other mode was taken: {found.unmeasured or found.why}")
            return
        self._words.tell(f"mode {found.best.name}: {found.why}", "adapt")
        self._become(chosen_options(self._asked, found, found.best))

    def end(self) -> None:
        """Nothing is attached any more: it is chosen anew."""
        if self.options != self._asked:
            self._become(self._asked)

    def _become(self, options: AttachOptions) -> None:
        self.options = options
        self._known.become(options)
        self._way.become(options)
