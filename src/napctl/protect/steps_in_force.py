"""The steps that are made: one transaction, made, taken back, and handed on."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.follow_words import TellOf
from napctl.change.after_reset import set_again_after
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
    NapiChange,
    Restored,
    ThreadChange,
    Transaction,
    devices_of,
)
from napctl.model.errors import Away, Busy, NapctlError, Unsupported
from napctl.model.storm import StormCounts
from napctl.model.storm_change import StormChange, StormControlChange, StormLimitsChange
from napctl.protect.groups import Protected
from napctl.protect.ladder import KINDS, StepKind
from napctl.protect.steps import changes_of_step, of_step, threads_held_elsewhere
from napctl.protect.storm_control import refuse_impossible
from napctl.protect.storm_step import StormStep

__all__ = ["PROTECTION", "RolledBackByHand", "StepsInForce", "strays"]


PROTECTION = "protection"
"""The entry of the service's keeper (model/change.py)."""
PATIENCE_SECONDS = 0.2
"""With another napctl that is changing settings: what is to be done is tried again at the next window, or look."""
Say = Callable[[str, str], None]
"""Receives a device, or "", and a line, and passes the same one on once."""
LeftOut = Callable[[Change, NapctlError], bool]


class RolledBackByHand(Exception):
    """Somebody else has put back what was made."""


class StepsInForce:
    """Of one network namespace. All raise NapctlError, and RolledBackByHand where the journal has them no more.

    `entry`: as of a Keeper; `storm_per_second`: as of ProtectOptions; `say` is told of errors that may come at each
    look.
    """

    def __init__(
        self, netns: NetworkNamespace, storm_per_second: int | None, guard: Guard, directory: Path, tell: TellOf,
        say: Say, *, entry: str,
    ):  # fmt: skip
        self._netns, self._guard, self._directory, self._tell, self._say = netns, guard, directory, tell, say
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

    def is_limited(self, ifindex: int) -> bool:
        """Whether storm control limits something there."""
        return bool(self._limits(ifindex))

    def possible(self, group: Protected) -> tuple[StepKind, ...]:
        """Steps that can be made there by now: storm control has to be attached before."""
        is_armed = self._storm is not None and self._storm.is_armed(group.ifindex)
        return group.steps if is_armed else _without_storm_control(group.steps)

    def is_judged_by_old_rules(self) -> bool:
        """Whether addresses or rules have changed since limits were set: one that was taken over, or translated, by now
        is no reason to wait for the next look."""
        return self._storm is not None and self._storm.is_out_of_date(self.changes)

    def check(self) -> None:
        """Whether it still stands in the journal; without its lock."""
        self._refuse_rolled_back(Journal.read(self._directory, live=True))

    @contextmanager
    def _journal(self) -> Iterator[Journal]:
        """Raises Busy: who waits longer sees no flood meanwhile."""
        with undisturbed(), Journal(self._directory, patience_seconds=PATIENCE_SECONDS) as journal:
            yield journal

    # Up and down.

    def make(self, step: StepKind, groups: Sequence[Protected], left_out: LeftOut) -> tuple[Change, ...]:
        """One step for groups of one device: what was to be changed; nothing if it is so already, or is others'."""
        device = groups[0].device
        with self._journal() as journal:
            live = journal.live()
            self._refuse_rolled_back(live)
            if step == "storm control":
                return self._limit(journal, groups[0])
            held = threads_held_elsewhere(live, self.transaction.number if self.transaction is not None else 0)
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
        if self._limits(group.ifindex):  # for other instances
            return ()
        if self._storm is None or self.transaction is None:
            raise Unsupported(f"storm control of {group.device}: it is not attached")
        self.transaction, words = self._storm.limit(journal, self.transaction, group.ifindex)
        for line in words:
            self._tell(group.device, line)
        return tuple(self._limits(group.ifindex))

    def _limits(self, ifindex: int) -> list[StormLimitsChange]:
        limits = (each for each in self.changes if isinstance(each, StormLimitsChange))
        return [each for each in limits if each.ifindex == ifindex]

    def take_back(self, groups: Sequence[Protected], steps: Collection[StepKind], *, pass_again: bool) -> bool:
        """Those steps of groups of one device, its limits only if `pass_again`; whether there was anything."""
        limits = self._limits(groups[0].ifindex) if pass_again else ()
        mine = [each for each in (*self.of(groups), *limits) if of_step(each) in steps]
        if not mine:
            return False
        with self._journal() as journal:
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
        """What was made of instances of devices that have gone is forgotten. Storm control is put back: a device that
        was moved to another network namespace still has it. Of those that were reset all but storm control itself is
        undone, as nobody knows which part of it a reset has left. Names of both."""
        gone = [each for each in self.changes if getattr(each, "ifindex", 0) not in there]
        lost = [each for each in self.changes if isinstance(each, InstanceChange | StormLimitsChange)]
        if forgotten := [each for each in gone if not isinstance(each, StormChange)]:
            self._amend(forget=forgotten)
        taken = self.put_back_some([each for each in gone if isinstance(each, StormChange)])
        renewed = self.put_back_some([each for each in lost if each.ifindex in reset & there])
        return devices_of([*forgotten, *taken]), devices_of(renewed)

    def put_back_strays(self, groups: Sequence[Protected], wanted: Collection[int]) -> Sequence[Change]:
        """What is in force for no flood that is watched; what could be put back of it. `wanted`: interface indexes of
        what is to be protected."""
        return self.put_back_some(strays(self.changes, groups, wanted if self._storm is not None else ()))

    def put_back_some(self, changes: Sequence[Change]) -> Sequence[Change]:
        """Those of it that could be, by device; what cannot stays in force, and is tried again at the next look."""
        done: list[Change] = []
        for some in _by_device(changes):
            try:
                self._amend(without=some)
            except Away:  # its instances come back with it
                continue
            except Busy:
                raise
            except NapctlError as error:
                self._say(devices_of(some)[0], str(error))
            else:
                done += some
        return done

    def _amend(self, *, without: Sequence[Change] = (), forget: Sequence[Change] = ()) -> None:
        with self._journal() as journal:
            self._refuse_rolled_back(journal.live())
            assert self.transaction is not None
            with set_again_after(journal, without) as words:
                self.transaction = amend(journal, self.transaction, without=without, forget=forget)
                self._end_what_is_empty(journal)
        for line in words:
            self._tell("", line)

    # Storm control stands before it is needed.

    def mind_storm_control(self, groups: Sequence[Protected]) -> None:
        """Attached to each device, as many NICs reset for it; and told what addresses and rules there are now. Where it
        is refused, it is none of the steps."""
        if self._storm is None:
            return
        self._storm.adopt(self.transaction)
        self._drop_taken_away(self._storm)
        names = {each.ifindex: each.device for each in groups}
        for ifindex in self._storm.missing(names):
            fresh = begun("protect", names[ifindex], (), guard=self._guard, keeper=self._keeper)
            words: Sequence[str]
            try:
                with self._journal() as journal:
                    self._refuse_rolled_back(journal.live())
                    self.transaction, words = self._storm.arm(journal, self.transaction or fresh, ifindex)
            except Busy:
                raise
            except NapctlError as error:
                words = (f"no storm control: {error}",)
            for line in words:
                self._tell(names[ifindex], line)
        if self.transaction is not None and any(isinstance(each, StormLimitsChange) for each in self.changes):
            with self._journal() as journal:
                self._refuse_rolled_back(journal.live())
                self.transaction, words = self._storm.refresh(journal, self.transaction)
            for line in words:
                self._tell("", line)
        for each in groups:
            if not self._storm.is_armed(each.ifindex):
                each.steps = _without_storm_control(each.steps)

    def leave_out_impossible(self, groups: Sequence[Protected]) -> None:
        """As mind_storm_control(), and nothing is attached."""
        for ifindex in {each.ifindex: None for each in groups} if self._storm is not None else ():
            some = [each for each in groups if each.ifindex == ifindex]
            try:
                refuse_impossible(self._netns, ifindex)
            except NapctlError as error:
                self._tell(some[0].device, f"no storm control: {error}")
                for each in some:
                    each.steps = _without_storm_control(each.steps)

    def _drop_taken_away(self, storm: StormStep) -> None:
        """A program that somebody else has taken away is no part of what is in force, nor are its limits."""
        for ifindex in storm.taken_away():
            lost = [each for each in self.changes if isinstance(each, StormChange) and each.ifindex == ifindex]
            if self.put_back_some(lost):
                self._tell(lost[0].device, "somebody else has taken storm control away")
            if not any(each in self.changes for each in lost):
                storm.forget(ifindex)

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
                    with set_again_after(journal, recorded.changes) as words:
                        self.restored += restore(journal, recorded)
                    for line in words:
                        self._tell("", line)
            self.transaction = None

    def _refuse_rolled_back(self, live: Sequence[Transaction]) -> None:
        if self.transaction is not None and all(each.number != self.transaction.number for each in live):
            self.transaction = None
            raise RolledBackByHand

    def _end_what_is_empty(self, journal: Journal) -> None:
        if self.transaction is not None and not self.transaction.changes:
            journal.set_state(self.transaction.number, "restored")
            self.transaction = None


def strays(changes: Sequence[Change], groups: Sequence[Protected], stormy: Collection[int]) -> list[Change]:
    """Those that are of no group with steps made: its instances were made anew, its device is down or no longer
    named. `stormy`: interface indexes of devices that are to have storm control. Pure."""
    made = [each for each in groups if each.ladder.made]
    instances = {(each.ifindex, napi_id) for each in made for napi_id in each.napi_ids}
    limited = {each.ifindex for each in made if "storm control" in each.ladder.made}

    def is_stray(change: Change) -> bool:
        match change:
            case NapiChange() | ThreadChange():
                return (change.ifindex, change.napi_id) not in instances
            case StormLimitsChange():
                return change.ifindex not in limited or change.ifindex not in stormy
            case StormControlChange():
                return change.ifindex not in stormy
        return False

    found = [each for each in changes if is_stray(each)]
    switched = {each.ifindex for each in found if isinstance(each, ThreadChange) and each.whole_device}
    # who puts one of these back ends the threads of all
    return [
        each for each in changes
        if each in found or (isinstance(each, InstanceChange) and each.ifindex in switched)
    ]  # fmt: skip


def _without_storm_control(steps: Sequence[StepKind]) -> tuple[StepKind, ...]:
    return tuple(each for each in steps if each != "storm control")


def _by_device(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Storm control apart: it can be put back while instances are away."""
    found: dict[tuple[object, bool], list[Change]] = {}
    for each in changes:
        found.setdefault((getattr(each, "ifindex", 0), isinstance(each, StormChange)), []).append(each)
    yield from found.values()
