"""What somebody else does to the settings of a followed target: told, counted, and in the end left to him."""

import time
from collections.abc import Collection, Iterable, Mapping

from napctl.attach.follow_devices import PlacedNotice
from napctl.attach.follow_step import Present, Step, touched_settings
from napctl.attach.follow_words import Words
from napctl.attach.inspect_process import EpollInstance, PlainSocket, Ring
from napctl.attach.inspect_target import Examination
from napctl.attach.objections import LostSettings, Objections
from napctl.change.one_change import value_words
from napctl.kernel.monitor import What
from napctl.model.change import Change, NapiChange, Transaction
from napctl.model.plan import settings
from napctl.model.settings import kernel_name

__all__ = ["RESETS", "Conflicts", "foreign_settings"]


RESETS = frozenset[What](("link up", "napi ids", "rings", "channels"))
"""Notices after which a device may have lost what was set."""


class Conflicts:
    """Of one target. What he puts back is set again, and left to him at the third time; a value of his own at once."""

    def __init__(self, objections: Objections, target: str, words: Words):
        self._lost, self._words = LostSettings(objections, target), words
        self._foreign: Mapping[str, str] = {}

    @property
    def left(self) -> Collection[str]:
        """What is not set again, as a change says where."""
        return self._lost.left

    @property
    def count(self) -> int:
        """NAPI and epoll instances that are left to him."""
        return len(self.left | self._foreign.keys())

    def heed(self, notices: Iterable[PlacedNotice]) -> None:
        """What is lost by a reset is nobody's doing."""
        for netns, each in notices:
            if each.what == "lost":
                self.heed_nobody_knows_what()
            elif each.what in RESETS:
                self._lost.reset((netns, each.ifindex), time.monotonic())

    def heed_nobody_knows_what(self) -> None:
        """Any device may have been reset: notices were lost, or the machine has slept."""
        self._lost.reset_all(time.monotonic())

    def look(self, found: Examination | None) -> None:
        """Forget what is not there any more, by a deep look; None: no process of the target is left.

        A device that does not feed the target at the moment is not in it: as long as none does, nothing tells which of
        their NAPI instances have gone."""
        polling: list[EpollInstance | PlainSocket | Ring] = []
        if found is not None:
            polling = [*found.instances, *found.plain_sockets, *found.rings]
        processes = {each.where for each in polling}
        places = [f"{id_} of {each.device.name}" for id_, each in found.napis.items()] if found else []
        napis = {f"NAPI {each}" for each in places} | {f"NAPI thread {each}" for each in places}

        def is_gone(where: str) -> bool:
            return bool(napis) and where not in napis if where.startswith("NAPI ") else where not in processes

        self._lost.forget_if(is_gone)

    def leave(self, step: Step) -> bool:
        """Whether something that was lost is left to him, from now on."""
        left = self._lost.hear(step.lost, time.monotonic())
        for change in left:
            self._words.tell(f"{change.where}: somebody else keeps changing it; left to him", "yield")
        return bool(left)

    def made(self, changes: Iterable[Change]) -> None:
        """These were set, perhaps once more."""
        self._lost.made(changes)

    def see(self, transaction: Transaction, present: Present) -> None:
        """What there is by now of what is attached."""
        before, self._foreign = self._foreign, foreign_settings(transaction, present)
        for where, words in self._foreign.items():
            if before.get(where) != words:
                self._words.tell(f"{where}: {words}, as somebody else has set it; left to him", "yield")

    def end(self) -> None:
        """Nothing is attached any more."""
        self._foreign = {}


def foreign_settings(transaction: Transaction, present: Present) -> Mapping[str, str]:
    """What attached NAPI instances have that is neither ours nor what was there before, in words, by where: somebody
    else has set it, and it is left to him."""
    found = {}
    for change in transaction.changes:
        if not isinstance(change, NapiChange) or change.leaving is not None:
            continue
        there = present.napis.get((change.netns, change.napi_id))
        if there is None or touched_settings(there) == change.before:
            continue
        others = [name for name, value in settings(change.after) if getattr(there, name) != value]
        if others:
            words = (f"{kernel_name(each)} is now {value_words(each, getattr(there, each))}" for each in others)
            found[change.where] = ", ".join(words)
    return found
