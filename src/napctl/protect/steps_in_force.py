"""The steps that are made: one transaction, made, taken back, and handed on."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.follow_words import TellOf
from napctl.change.guard import myself
from napctl.change.journal import Journal
from napctl.change.recovery import is_adoptable
from napctl.change.takeover import take_over
from napctl.change.transaction import amend, apply, begun, restore, undisturbed
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import (
    Change,
    Guard,
    InstanceChange,
    Restored,
    StormLimitsChange,
    Transaction,
    devices_of,
)
from napctl.model.errors import NapctlError
from napctl.model.storm import StormCounts
from napctl.protect.groups import Protected
from napctl.protect.ladder import KINDS, StepKind
from napctl.protect.steps import changes_of_step, held_elsewhere, of_step
from napctl.protect.storm_step import StormStep

__all__ = ["PROTECTION", "RolledBackByHand", "StepsInForce"]


PROTECTION = "protection"
"""The entry of the service's keeper (model/change.py)."""
"""Receives a device, or "", and a line."""
LeftOut = Callable[[Change, NapctlError], bool]


class RolledBackByHand(Exception):
    """Somebody else has put back what was made."""


class StepsInForce:
    """Of one network namespace. All raise NapctlError, and RolledBackByHand where the journal has them no more.

    `entry`: as of a Keeper; `storm_per_second`: as of ProtectOptions.
    """

    def __init__(
        self, netns: NetworkNamespace, storm_per_second: int | None, guard: Guard, directory: Path, tell: TellOf,
        *, entry: str,
    ):  # fmt: skip
        self._netns, self._guard, self._directory, self._tell = netns, guard, directory, tell
        self._keeper = myself(entry)
        self._storm = None if storm_per_second is None else StormStep(netns, storm_per_second)
        self.transaction: Transaction | None = None
        self.restored: list[Restored] = []
        """What became of each setting that was put back in the end, and of those before that were left to others."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """All that is in force."""
        return self.transaction.changes if self.transaction is not None else ()

    def of(self, groups: Sequence[Protected]) -> list[Change]:
        """What of it is of these instances alone."""
        ids = {(each.ifindex, napi_id) for each in groups for napi_id in each.napi_ids}
        of_instances = (each for each in self.changes if isinstance(each, InstanceChange))
        return [each for each in of_instances if (each.ifindex, each.napi_id) in ids]

    def kinds_of(self, group: Protected) -> tuple[StepKind, ...]:
        """Steps that are made there; a limit of the device belongs to those that have another step."""
        own = self.of([group])
        kinds = {of_step(each) for each in (*own, *(self._limits(group.ifindex) if own else ()))}
        return tuple(kind for kind in KINDS if kind in kinds)

    def check(self) -> None:
        """Whether it still stands in the journal; without its lock."""
        self._refuse_rolled_back(Journal.read(self._directory, live=True))

    # Up and down.

    def make(self, step: StepKind, groups: Sequence[Protected], left_out: LeftOut) -> tuple[Change, ...]:
        """One step for groups of one device: what was to be changed; nothing if it is so already, or is others'."""
        device = groups[0].device
        with undisturbed(), Journal(self._directory) as journal:
            live = journal.live()
            self._refuse_rolled_back(live)
            if step == "storm control":
                return self._limit(journal, groups[0])
            held = held_elsewhere(live, self.transaction.number if self.transaction is not None else 0)
            napis = [napi for each in groups for napi in each.napis]
            changes = changes_of_step(step, self._netns.inode, device, napis, held)
            if changes and self.transaction is None:
                fresh = begun("protect", device, changes, guard=self._guard, keeper=self._keeper)
                self.transaction = apply(journal, fresh, then="applied", leave_out=left_out)
            elif changes and self.transaction is not None:
                name = ", ".join(dict.fromkeys((*self.transaction.name.split(", "), device)))
                named = replace(self.transaction, name=name)
                self.transaction = amend(journal, named, more=changes, leave_out=left_out)
            self._end_what_is_empty(journal)
            return changes

    def _limit(self, journal: Journal, group: Protected) -> tuple[Change, ...]:
        assert self._storm is not None
        assert self.transaction is not None
        if self._limits(group.ifindex):  # for other instances
            return ()
        self.transaction, words = self._storm.limit(journal, self.transaction, group.ifindex)
        for line in words:
            self._tell(group.device, line)
        return tuple(self._limits(group.ifindex))

    def _limits(self, ifindex: int) -> list[StormLimitsChange]:
        limits = (each for each in self.changes if isinstance(each, StormLimitsChange))
        return [each for each in limits if each.ifindex == ifindex]

    def take_back(self, groups: Sequence[Protected], *, pass_again: bool) -> bool:
        """All steps of groups of one device, and (`pass_again`) its limits; whether there was anything."""
        mine = [*self.of(groups), *(self._limits(groups[0].ifindex) if pass_again else ())]
        if not mine:
            return False
        with undisturbed(), Journal(self._directory) as journal:
            self._refuse_rolled_back(journal.live())
            assert self.transaction is not None
            if len(mine) == len(self.changes):
                rows = restore(journal, self.transaction)
                self.restored += [row for row in rows if row.outcome == "left"]
                self.transaction = None
            else:
                self.transaction = amend(journal, self.transaction, without=mine)
        return True

    def drop(self, there: set[int], reset: set[int]) -> tuple[Sequence[str], Sequence[str]]:
        """What was made of devices that have gone is forgotten; of those that were reset it is undone as a whole, as
        nobody knows which part of it a reset has left. Names of both."""
        gone = [each for each in self.changes if getattr(each, "ifindex", 0) not in there]
        of_instances = (each for each in self.changes if isinstance(each, InstanceChange))
        renewed = [each for each in of_instances if each.ifindex in reset & there]
        if gone or renewed:
            with undisturbed(), Journal(self._directory) as journal:
                self._refuse_rolled_back(journal.live())
                assert self.transaction is not None
                self.transaction = amend(journal, self.transaction, without=renewed, forget=gone)
                self._end_what_is_empty(journal)
        return devices_of(gone), devices_of(renewed)

    # Storm control stands before it is needed.

    def mind_storm_control(self, groups: Sequence[Protected]) -> None:
        """Attached to each device, as many NICs reset for it; and told what addresses and rules there are now. Where it
        is refused, it is none of the steps."""
        if self._storm is None:
            return
        self._storm.adopt(self.transaction)
        names = {each.ifindex: each.device for each in groups}
        for ifindex in self._storm.missing(names):
            fresh = begun("protect", names[ifindex], (), guard=self._guard, keeper=self._keeper)
            words: Sequence[str]
            try:
                with undisturbed(), Journal(self._directory) as journal:
                    self.transaction, words = self._storm.arm(journal, self.transaction or fresh, ifindex)
            except NapctlError as error:
                words = (f"no storm control: {error}",)
            for line in words:
                self._tell(names[ifindex], line)
        if self.transaction is not None and any(isinstance(each, StormLimitsChange) for each in self.changes):
            with undisturbed(), Journal(self._directory) as journal:
                self._refuse_rolled_back(journal.live())
                self.transaction, words = self._storm.refresh(journal, self.transaction)
            for line in words:
                self._tell("", line)
        for each in groups:
            if not self._storm.is_armed(each.ifindex):
                each.steps = tuple(step for step in each.steps if step != "storm control")

    def storm_counts(self) -> dict[int, StormCounts]:
        """Of the devices where storm control limits, by interface index."""
        if self._storm is None or self.transaction is None:
            return {}
        return self._storm.counts(self.transaction)

    # To others.

    def adopt(self, live: Iterable[Transaction]) -> None:
        """What an earlier process of the service has in force: no setting is written."""
        for each in live:
            mine = each.keeper is not None and each.keeper.entry == PROTECTION
            if each.kind == "protect" and mine and is_adoptable(each):
                with undisturbed(), Journal(self._directory) as journal:
                    self.transaction = take_over(journal, each, self._guard, self._keeper)
                self._tell("", f"took over the protection of {each.name}", "adopt")

    def change_guard(self, guard: Guard) -> None:
        """That one is to restore it, from now on. Raises what take_over() raises."""
        self._guard = guard
        if self.transaction is not None:
            with undisturbed(), Journal(self._directory) as journal:
                self.transaction = take_over(journal, self.transaction, guard, self._keeper)

    def put_back(self) -> None:
        """Everything. Raises what restore() raises; it can be repeated then."""
        if self.transaction is not None:
            with undisturbed(), Journal(self._directory) as journal:
                number = self.transaction.number
                if (recorded := next((each for each in journal.live() if each.number == number), None)) is not None:
                    self.restored += restore(journal, recorded)
            self.transaction = None

    def _refuse_rolled_back(self, live: Sequence[Transaction]) -> None:
        if self.transaction is not None and all(each.number != self.transaction.number for each in live):
            self.transaction = None
            raise RolledBackByHand

    def _end_what_is_empty(self, journal: Journal) -> None:
        if self.transaction is not None and not self.transaction.changes:
            journal.set_state(self.transaction.number, "restored")
            self.transaction = None
