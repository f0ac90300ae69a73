"""Of a guard: how long it waits for another keeper, and what it restores when nobody came."""

from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from napctl.change.journal import Journal
from napctl.change.recovery import is_adoptable, restored_each
from napctl.kernel.machine_sleep import SleepWatch, now_boot_ns
from napctl.model.change import Keeper, Transaction
from napctl.model.errors import RolledBack

__all__ = ["GuardWait"]


LOOK_SECONDS = 1.0
"""Between two looks whether it was taken over, or its server has ended too."""


class GuardWait:
    """Of one guard, for transactions whose keepers have ended. Time in which the machine slept does not count: who is
    waited for sleeps as well."""

    def __init__(self, sleep: SleepWatch | None = None) -> None:
        self._sleep = sleep or SleepWatch()
        self._noticed: dict[tuple[int, Keeper | None], int] = {}
        """Deadlines by transaction and dead keeper: a full disk cannot be told them."""
        self.seconds_left = float("inf")
        """Until restore_due() is to be called again; inf: nothing is left to wait for."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.seconds_left == float("inf")

    def restore_due(self, journal: Journal, mine: Sequence[Transaction]) -> list[Transaction]:
        """Restore those whose time has come; which. The moment of the keeper's end is recorded for the others.

        `mine`: all that the guard is to restore and whose keepers are dead, as they are in the journal, which is
        locked. Raises what restored_each() raises but for RolledBack, with which all is put back.
        """
        slept_ns = self._sleep.slept_ns()
        deadlines = {each.number: self._deadline_boot_ns(journal, each, slept_ns) for each in mine}
        now = now_boot_ns()
        due = [each for each in mine if deadlines[each.number] <= now]
        left = [(deadlines[each.number] - now) / 1e9 for each in mine if deadlines[each.number] > now]
        self.seconds_left = min(*left, LOOK_SECONDS) if left else float("inf")
        restored = []
        with suppress(RolledBack):
            for each, _rows in restored_each(journal, due):
                restored.append(each)
        return restored

    def _deadline_boot_ns(self, journal: Journal, transaction: Transaction, slept_ns: int) -> int:
        """0: at once. What is not in force as a whole, or of whose server nothing runs, nobody can take over."""
        guard = transaction.guard
        if guard is None or not guard.wait_ns or not is_adoptable(transaction):
            return 0
        key = (transaction.number, transaction.keeper)
        noticed = max(guard.deadline_boot_ns, self._noticed.get(key, 0))
        if guard.deadline_boot_ns and not slept_ns:
            return noticed
        deadline = self._noticed[key] = noticed + slept_ns if noticed else now_boot_ns() + guard.wait_ns
        with suppress(RolledBack):
            journal.update(replace(transaction, guard=replace(guard, deadline_boot_ns=deadline)), transaction.state)
        return deadline
