"""Storm control as the last step of the ladder: attached when protection is armed, limiting in the storm."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from napctl.change.journal import Journal
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netfilter import nft_generation
from napctl.kernel.netlink import Refused
from napctl.model.change import Change, Transaction
from napctl.model.errors import NapctlError, Unsupported
from napctl.model.storm import StormCounts, limits_of
from napctl.model.storm_change import StormControlChange, StormLimitsChange
from napctl.protect.storm_control import StormControl, arm
from napctl.protect.storm_facts import own_addresses

__all__ = ["StormStep"]


_Surroundings = tuple[int | None, frozenset[str]]
"""Generation of the rules of nftables (None: it cannot be read), and addresses to which packets are the host's own."""


class StormStep:
    """Of the devices of one network namespace. `per_second`: packets of each kind that pass on each CPU."""

    def __init__(self, netns: NetworkNamespace, per_second: int):
        self._netns, self._per_second = netns, per_second
        self._controls: dict[int, StormControl] = {}
        self._refused: set[int] = set()
        self._judged_by: _Surroundings | None = None
        """What limits were last judged by."""

    def is_armed(self, ifindex: int) -> bool:
        """Whether it was attached there, and nobody was seen to have taken it away."""
        return ifindex in self._controls

    def adopt(self, transaction: Transaction | None) -> None:
        """What an earlier process has attached."""
        for each in transaction.changes if transaction is not None else ():
            if isinstance(each, StormControlChange) and each.ifindex not in self._controls:
                self._controls[each.ifindex] = StormControl(self._netns, each)

    def taken_away(self) -> list[int]:
        """Devices that have the program no more: somebody else has taken it away, or they have gone."""
        return [ifindex for ifindex, each in self._controls.items() if not each.is_attached]

    def forget(self, ifindex: int) -> None:
        """It is to be attached there anew."""
        self._controls.pop(ifindex, None)

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
        if ifindex not in self._controls:
            raise Unsupported(f"storm control of device {ifindex}: it is not attached")
        self._judged_by = _surroundings(self._netns)  # before: what changes meanwhile is seen at the next look
        limited = self._controls[ifindex].limit(journal, transaction, limits_of(self._per_second))
        return limited.transaction, limited.words

    def is_out_of_date(self, changes: Iterable[Change]) -> bool:
        """Whether refresh() is worth its cost already: something is limited, and addresses or rules have changed."""
        limiting = any(isinstance(each, StormLimitsChange) for each in changes)
        return limiting and _surroundings(self._netns) != self._judged_by

    def refresh(self, journal: Journal, transaction: Transaction) -> tuple[Transaction, Sequence[str]]:
        """Addresses and rules as they are now; as arm(), of what is limited otherwise because of them. Raises
        NapctlError."""
        limiting = {each.ifindex for each in transaction.changes if isinstance(each, StormLimitsChange)}
        self._judged_by = _surroundings(self._netns)
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


def _surroundings(netns: NetworkNamespace) -> _Surroundings:
    try:
        generation = nft_generation(netns)
    except (OSError, Refused):
        generation = None
    return generation, own_addresses(netns)
