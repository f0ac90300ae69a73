"""Storm control as the last step of the ladder: attached when protection is armed, limiting in the storm."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from napctl.change.journal import Journal
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import StormControlChange, StormLimitsChange, Transaction
from napctl.model.errors import NapctlError
from napctl.model.storm import StormCounts, limits_of
from napctl.protect.storm_control import StormControl, arm

__all__ = ["StormStep"]


class StormStep:
    """Of the devices of one network namespace. `per_second`: packets of each kind that pass on each CPU."""

    def __init__(self, netns: NetworkNamespace, per_second: int):
        self._netns, self._per_second = netns, per_second
        self._controls: dict[int, StormControl] = {}
        self._refused: set[int] = set()

    def is_armed(self, ifindex: int) -> bool:
        """Whether it is attached there."""
        return ifindex in self._controls

    def adopt(self, transaction: Transaction | None) -> None:
        """What an earlier process has attached."""
        for each in transaction.changes if transaction is not None else ():
            if isinstance(each, StormControlChange) and each.ifindex not in self._controls:
                self._controls[each.ifindex] = StormControl(self._netns, each)

    def missing(self, ifindexes: Iterable[int]) -> list[int]:
        """Devices to which it is still to be attached."""
        return [each for each in dict.fromkeys(ifindexes) if not (self.is_armed(each) or each in self._refused)]

    def arm(self, journal: Journal, transaction: Transaction, ifindex: int) -> tuple[Transaction, Sequence[str]]:
        """Attach it, letting everything pass; what is in force then, and what is to be said of it. It is tried once.

        Raises NapctlError."""
        try:
            armed = arm(journal, self._netns, ifindex, transaction)
        except NapctlError:
            self._refused.add(ifindex)
            raise
        self._controls[ifindex] = armed.control
        return armed.transaction, armed.words

    def limit(self, journal: Journal, transaction: Transaction, ifindex: int) -> tuple[Transaction, Sequence[str]]:
        """Limit what nobody asked for; as arm(). Raises NapctlError."""
        limited = self._controls[ifindex].limit(journal, transaction, limits_of(self._per_second))
        return limited.transaction, limited.words

    def refresh(self, journal: Journal, transaction: Transaction) -> tuple[Transaction, Sequence[str]]:
        """Addresses and rules as they are now; as arm(), of what is limited otherwise because of them. Raises
        NapctlError."""
        limiting = {each.ifindex for each in transaction.changes if isinstance(each, StormLimitsChange)}
        said: list[str] = []
        for ifindex in limiting & self._controls.keys():
            if (limited := self._controls[ifindex].refresh(journal, transaction)) is not None:
                transaction = limited.transaction
                said += limited.words
        return transaction, said

    def counts(self, transaction: Transaction) -> dict[int, StormCounts]:
        """What has been counted where it limits, by interface index; nothing of a program that is gone."""
        limiting = {each.ifindex for each in transaction.changes if isinstance(each, StormLimitsChange)}
        found = {}
        for ifindex in limiting & self._controls.keys():
            with suppress(NapctlError):
                found[ifindex] = self._controls[ifindex].counts()
        return found
