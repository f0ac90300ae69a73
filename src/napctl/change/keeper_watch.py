"""The guard of the service: a process that no keeper has started, and that follows each of them.

It outlives the control group of the service, which a guard of the keeper's own does not.
"""

import math
import os
import select
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from napctl.change.guard_lock import guard_lock
from napctl.change.guard_wait import GuardWait
from napctl.change.journal import Journal
from napctl.change.same_process import running
from napctl.model.backoff import Pauses
from napctl.model.change import Keeper, Transaction
from napctl.model.errors import NapctlError

__all__ = ["watch_keepers"]


READ_SECONDS = 1.0
"""Between two looks into the journal, which may have a new keeper."""
TRIED_AGAIN = Pauses(READ_SECONDS, 5.0)


def watch_keepers(
    directory: Path, stopped: Callable[[], bool], say: Callable[[str], None], wake: Sequence[int] = (),
    ready: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Until `stopped()`: restore what a keeper that died has left, unless another takes it over within the time that is
    recorded with it. `wake`: descriptors that can be read when `stopped()` is to be asked; `ready` is told once it
    watches.

    Only for transactions whose guard is that of the service. Raises NapctlError if there is one at work already.
    """
    with guard_lock(directory), Keepers() as keepers:
        ready()
        waiting, pause_s, told = GuardWait(), 0.0, ""
        while not stopped():
            left = READ_SECONDS
            try:
                keepers.follow(_keepers(Journal.read(directory, live=True)))
                if keepers.dead:
                    with Journal(directory) as journal:
                        mine = [each for each in journal.live() if _is_left_behind(each)]
                        for each in waiting.restore_due(journal, mine):
                            say(f"put back {each.title}: its keeper has ended, and no other came in time")
                    left = min(left, waiting.seconds_left)
                pause_s, told = 0.0, ""
            except (NapctlError, OSError) as error:
                if told != (told := f"to be tried again: {error}"):
                    say(told)
                left = pause_s = TRIED_AGAIN.after(pause_s)
            keepers.wait(left, wake)


class Keepers:
    """Holds on to processes, so that the end of each is noticed at once, and none is taken for another one."""

    def __init__(self) -> None:
        self._held: dict[Keeper, int] = {}
        """A pidfd of each that runs."""
        self.dead: frozenset[Keeper] = frozenset()

    def __enter__(self) -> "Keepers":
        return self

    def __exit__(self, *exc: object) -> None:
        self.follow(())

    def follow(self, keepers: Collection[Keeper]) -> None:
        """These, from now on; which of them are dead."""
        for each in self._held.keys() - set(keepers):
            os.close(self._held.pop(each))
        for each in set(keepers) - self._held.keys():
            if (held := _hold(each)) is not None:
                self._held[each] = held
        ended = _readable(self._held.values(), 0.0)
        for each in [one for one, held in self._held.items() if held in ended]:
            os.close(self._held.pop(each))
        self.dead = frozenset(set(keepers) - self._held.keys())

    def wait(self, seconds: float, wake: Sequence[int]) -> None:
        """Until one of them ends, `wake` can be read, or so long."""
        _readable([*self._held.values(), *wake], seconds)


def _hold(keeper: Keeper) -> int | None:
    """A pidfd of that very process: who has its pid after it was opened has had it before, if its start is right."""
    with ExitStack() as undo, suppress(ProcessLookupError):
        held = os.pidfd_open(keeper.pid)
        undo.callback(os.close, held)
        if running(keeper):
            undo.pop_all()
            return held
    return None


def _readable(descriptors: Collection[int], seconds: float) -> set[int]:
    waiting = select.poll()
    for each in descriptors:
        waiting.register(each, select.POLLIN)
    return {fd for fd, _ in waiting.poll(math.ceil(seconds * 1000))}


def _keepers(live: Sequence[Transaction]) -> set[Keeper]:
    return {each.keeper for each in live if _is_of_service(each) and each.keeper is not None}


def _is_of_service(transaction: Transaction) -> bool:
    return transaction.guard is not None and transaction.guard.pid == 0 and transaction.keeper is not None


def _is_left_behind(transaction: Transaction) -> bool:
    keeper = transaction.keeper
    return keeper is not None and _is_of_service(transaction) and not running(keeper)
