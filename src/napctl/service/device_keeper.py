"""Keeps the settings of the devices as the policy wants them: one transaction, which follows what they go through."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.follow_devices import Readable
from napctl.attach.follow_words import TellOf
from napctl.attach.objections import Objections
from napctl.change.guard import myself
from napctl.change.journal import Journal
from napctl.change.recovery import is_adoptable, refuse_unsettled
from napctl.change.renewal import object_of
from napctl.change.takeover import leave, take_over
from napctl.change.transaction import amend, apply, begun, restore, undisturbed
from napctl.kernel import running_kernel
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.links import Link, links, links_at, links_named
from napctl.kernel.monitor import Monitor
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Change, ChannelsChange, Guard, Restored, Transaction, devices_of
from napctl.model.errors import BadInput, NapctlError
from napctl.model.machine import Machine
from napctl.model.plan import settings
from napctl.model.policy import DeviceEntry, Origin
from napctl.observe.machine import take_machine
from napctl.service.device_plan import WantedChanges, setting_key, wanted_changes
from napctl.service.device_refusals import DeviceRefusals, Refused, device_of
from napctl.service.device_resets import DeviceResets
from napctl.service.device_step import (
    Outdated,
    left_words,
    lines_of,
    lines_of_put_back,
    lost_settings,
    outdated,
)
from napctl.service.snapshots import DeviceState

__all__ = ["DEVICES", "UNTIL", "DeviceKeeper"]


DEVICES = "devices"
"""The entry of the keeper (model/change.py)."""
UNTIL = "until the policy is changed or `napctl policy apply` asks for it"
LOOK_SECONDS = 30.0
"""Between two looks that nothing has caused."""
EVENT_SECONDS = 0.2
"""Between an event, of which there may be many, and the look that it causes."""
STRANGER_SECONDS = 1.0
"""The same, of a device that no entry matched at the last look: it may be one that has come for good, or one of
containers that come and go."""


class DeviceKeeper:
    """Driven like a follower: turn() when it is due, take_notices() when one of sources() can be read.

    `held` tells the ids of NAPI instances that are attached; `tell` receives (device, line) of each decision. Once
    somebody else rolls its transaction back, nothing is set until there is another policy. `clock`: time.monotonic().
    """

    def __init__(
        self, netns: NetworkNamespace, guard: Guard, directory: Path, objections: Objections,
        tell: TellOf, held: Callable[[], Collection[int]],
        clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self._netns, self._guard, self._directory = netns, guard, directory
        self._objections, self._tell, self._held, self._clock = objections, tell, held, clock
        self._keeper = myself(DEVICES)
        self._entries: Sequence[DeviceEntry] = ()
        self._transaction: Transaction | None = None
        self._monitor: Monitor | None = None
        self._refusals = DeviceRefusals(tell)
        self._heard: set[str] = set()
        """Settings that somebody else has changed, and that were not set again since."""
        self._due_at = 0.0
        self._resets = DeviceResets()
        self._matches: Mapping[int, str] = {}
        """By interface index, names of those that an entry matched at the last look, and of those that are set."""
        self._problems: Mapping[str, str] = {}
        self._changed_unix_ns: dict[str, int] = {}
        self.rolled_back = False

    def keep(self, entries: Sequence[DeviceEntry]) -> None:
        """These from now on: at the next turn(), which tries again what was refused."""
        if not _same(entries, self._entries):
            self.rolled_back = False
        self._entries, self._due_at = tuple(entries), 0.0
        self._refusals.try_anew()
        self._refusals.forget_all_but(())

    def adopt(self, live: Iterable[Transaction], kept: int) -> None:
        """What an earlier process of the service has in force: no setting is written. `kept`: number of what it has
        left without a keeper, as who applies a plan by hand does too."""
        for each in live:
            mine = each.keeper.entry == DEVICES if each.keeper else each.number == kept
            if each.kind == "apply" and mine and is_adoptable(each):
                with undisturbed(), Journal(self._directory) as journal:
                    self._transaction = take_over(journal, each, self._guard, self._keeper)
                self._tell("", f"took over the settings of {each.name}", "adopt")

    @property
    def settings_in_force(self) -> Transaction | None:
        """What was set and stands."""
        return self._transaction

    @property
    def names(self) -> Collection[str]:
        """Of the devices that an entry matched at the last look."""
        return self._matches.values()

    def states(self) -> dict[str, DeviceState]:
        """For metrics, by device: settings that are not as the policy wants them, and those left to somebody else."""
        left = [key.split()[0] for key in self._objections.left]
        return {
            name: DeviceState(
                drift=left.count(name) + self._refusals.count(name) + (name in self._problems),
                conflicts=left.count(name),
                changed_unix_ns=self._changed_unix_ns.get(name),
            )
            for name in self.names
        }

    def sources(self) -> tuple[Readable, ...]:
        """What can be read when take_notices() is to be called."""
        return self._monitor.sources if self._monitor is not None else ()

    def take_notices(self) -> None:
        """Something has happened to a device."""
        if self._monitor is None:
            return
        now = self._clock()
        try:
            notices = list(self._monitor.waiting())
        except OSError:
            self._close_monitor()
            self._due_at = min(self._due_at, now + EVENT_SECONDS)
            return
        for notice in notices:
            ours = notice.ifindex in self._matches or notice.what == "lost"
            if ours and self._resets.hear(notice.what, notice.ifindex, now):
                self._refusals.try_anew(notice.device)
            self._due_at = min(self._due_at, now + (EVENT_SECONDS if ours else STRANGER_SECONDS))

    def seconds_left(self, now: float) -> float:
        """Until turn() is due, of the clock."""
        if not self._entries and self._transaction is None:
            return float("inf")
        return max(0.0, self._due_at - now)

    def turn(self) -> None:
        """Look, and set what differs. Errors are told, and tried again later."""
        now = self._clock()
        self._due_at = now + LOOK_SECONDS
        if self._refusals.may_look(now):
            try:
                self._look(now)
            except (NapctlError, OSError) as error:
                self._refusals.could_not_look(error, now)
            else:
                self._refusals.could_look()
        self._due_at = min(self._due_at, now + self._refusals.seconds_left(now))

    def look_anew(self) -> None:
        """The machine has slept: turn() is due now. What drivers lost over that is nobody's objection."""
        self._due_at = 0.0
        self._refusals.try_anew()
        self._resets.all_were(self._clock())

    def change_guard(self, guard: Guard) -> None:
        """That one is to restore what is set, from now on. Raises what take_over() raises."""
        self._guard = guard
        if self._transaction is not None:
            with undisturbed(), Journal(self._directory) as journal:
                self._transaction = take_over(journal, self._transaction, guard, self._keeper)

    def let_go(self) -> list[Restored]:
        """Put everything back, and name what somebody else has changed. Raises what restore() raises; it can be
        repeated then."""
        self._close_monitor()
        transaction, rows = self._transaction, []
        if transaction is not None:
            with undisturbed(), Journal(self._directory) as journal:
                if (recorded := self._recorded(journal)) is not None:
                    rows = restore(journal, recorded)
        devices = {each.where: getattr(each, "device", "") for each in self._changes}
        for row in rows:
            if row.outcome == "left":
                self._tell(devices.get(row.where, ""), left_words(row))
        self._transaction = None
        return rows

    def leave(self, *, kept: bool = False) -> None:
        """What is set stays so, without a keeper, or (`kept`) with this process as its keeper."""
        if self._transaction is not None and not kept:
            with undisturbed(), Journal(self._directory) as journal:
                leave(journal, self._transaction)
        self._transaction = None
        self._close_monitor()

    # A look.

    def _look(self, now: float) -> None:
        if self._monitor is None and self._entries:
            self._monitor = Monitor(self._netns).__enter__()
        if self.rolled_back or not (self._entries or self._transaction):
            return
        machine, existing = self._matched()
        held = self._held()
        asked = self._wanted(machine, held)
        self._matches = {each.ifindex: each.name for each in machine.devices}
        self._problems = asked.problems
        for device, why in asked.problems.items():
            self._tell(device, f"left as it is: {why}")
        self._refusals.forget_all_but(asked.changes)
        past = outdated(self._changes, machine, existing, asked, held)
        if not (self._refusals.due(asked.changes, now) or past.gone or past.put_back):
            self._end_what_is_empty()
            return
        with undisturbed(), Journal(self._directory) as journal:
            if self._transaction is not None and self._recorded(journal) is None:
                self._transaction, self.rolled_back = None, True
                self._refusals.forget_all_but(())
                self._tell("", f"devices: somebody has rolled their settings back; left so {UNTIL}")
                return
            unsettled = self._unsettled(journal, devices_of((*asked.changes, *past.put_back)))
            changed = self._hear([each for each in asked.changes if device_of(each) not in unsettled], now)
            due = self._refusals.due(self._wanted(machine, held).changes, now)
            more = [each for each in due if device_of(each) not in unsettled]
            back = [each for each in past.put_back if device_of(each) not in unsettled]
            before = self._changes
            refused = self._make(journal, more, back, past) if more or back or past.gone else {}
        if more or back:
            self._resets.set_now(self._clock())
        self._refusals.settle(more, refused, now)
        self._end_what_is_empty()
        for change, line in lines_of(more, (each for each in self._changes if object_of(each) not in refused)):
            self._changed_unix_ns[device_of(change)] = time.time_ns()
            self._tell(device_of(change), f"{line}, {self._reason(change, before, changed, now)}", "set")
        for change, line in lines_of_put_back(back, machine):
            self._tell(device_of(change), line, "restore")

    def _wanted(self, machine: Machine, held: Collection[int]) -> WantedChanges:
        return wanted_changes(self._entries, machine, held, self._objections.left, self._changes)

    def _matched(self) -> tuple[Machine, Collection[int]]:
        """With the devices that an entry matches, and those that are set; and the interface indexes of the latter that
        there are."""
        set_now = {getattr(each, "ifindex", 0) for each in self._changes}
        found = self._links(set_now)
        with EthtoolIoctl(self._netns) as ioctl:
            names = [
                each.name for each in found if each.ifindex in set_now or _may_match(self._entries, each, ioctl)
            ]  # fmt: skip
        existing = {each.ifindex for each in found}
        if not names:
            bare = Machine(kernel=running_kernel.kernel_release(), netns=self._netns.inode, devices=(), pollers=())
            return bare, existing
        return take_machine(self._netns, names, with_pollers=False), existing

    def _links(self, set_now: Collection[int]) -> Collection[Link]:
        """All devices, where an entry may match any; else those that entries name, and those that are set."""
        names = [each.name for each in self._entries if each.name is not None]
        if len(names) < len(self._entries):
            return links(self._netns)
        found = [*links_named(self._netns, names), *links_at(self._netns, set_now)]
        return {each.ifindex: each for each in found}.values()

    def _hear(self, asked: Sequence[Change], now: float) -> Collection[str]:
        """What was set and is not any more was changed by somebody else, unless its device was just reset: the keys of
        what he has changed. He is heard once for each time that it was set."""
        changed = {
            key: ifindex for key, ifindex in lost_settings(asked, self._changes).items()
            if not self._resets.was(ifindex, now) and key not in self._heard
        }  # fmt: skip
        for key, ifindex in changed.items():
            if self._objections.heard(key, now):
                words = f"{key}: somebody else keeps changing it; left to him {UNTIL}"
                self._tell(self._matches.get(ifindex, ""), words, "yield")
        self._heard |= changed.keys()
        return frozenset(self._heard)

    def _unsettled(self, journal: Journal, devices: Iterable[str]) -> Collection[str]:
        """Devices on which another napctl is at work: what it tries, and what waits for a confirmation, is left."""
        found = []
        for device in devices:
            try:
                refuse_unsettled(journal, [device], keeper=self._keeper)
            except BadInput as error:
                found.append(device)
                self._tell(device, f"left as it is for now: {error}")
        return found

    def _make(self, journal: Journal, more: Sequence[Change], back: Sequence[Change], past: Outdated) -> Refused:
        """What was refused: that does not keep the rest from being set."""
        refused: dict[tuple[object, ...], tuple[Change, NapctlError]] = {}

        def left_out(change: Change, error: NapctlError) -> bool:
            refused[object_of(change)] = change, error
            return True

        names = ", ".join(devices_of((*past.kept, *more)))
        if self._transaction is None:
            fresh = begun("apply", names, tuple(more), guard=self._guard, keeper=self._keeper)
            self._transaction = apply(journal, fresh, then="applied", leave_out=left_out)
        else:
            if past.kept != self._transaction.changes:
                self._transaction = journal.update(replace(self._transaction, changes=past.kept), "applied")
            self._transaction = amend(
                journal, replace(self._transaction, name=names), more=more, without=back, forget=past.gone,
                leave_out=left_out, join=True,
            )  # fmt: skip
        self._heard -= {setting_key(each, name) for each in more for name, _ in settings(each.after)}
        if any(isinstance(each, ChannelsChange) for each in more):
            self._due_at = min(self._due_at, self._clock() + EVENT_SECONDS)
        return refused

    def _reason(self, change: Change, before: Iterable[Change], changed: Collection[str], now: float) -> str:
        ifindex = getattr(change, "ifindex", 0)
        if any(setting_key(change, name) in changed for name, _ in settings(change.after)):
            return "as somebody else had changed it"
        known = any(getattr(each, "ifindex", 0) == ifindex for each in before)
        return "as the device was reset" if known and self._resets.was(ifindex, now) else "as the policy wants"

    def _end_what_is_empty(self) -> None:
        """A transaction of which everything is refused stays, so that trying again makes no further ones."""
        if self._transaction is not None and not self._transaction.changes and not self._refusals.any:
            with undisturbed(), Journal(self._directory) as journal:
                if self._recorded(journal) is not None:
                    journal.set_state(self._transaction.number, "restored")
            self._transaction = None

    @property
    def _changes(self) -> tuple[Change, ...]:
        return self._transaction.changes if self._transaction is not None else ()

    def _recorded(self, journal: Journal) -> Transaction | None:
        """What is in force of it; None: somebody has rolled it back."""
        if self._transaction is None:
            return None
        found = journal.in_force(self._transaction)
        if found is not None:  # maybe recorded anew
            self._transaction = replace(self._transaction, number=found.number)
        return found

    def _close_monitor(self) -> None:
        self._resets.forget_links()
        if self._monitor is not None:
            with suppress(OSError):
                self._monitor.__exit__()
            self._monitor = None


def _same(some: Sequence[DeviceEntry], others: Sequence[DeviceEntry]) -> bool:
    """But for where they stand."""
    nowhere = Origin(file="", line=0)
    bare = [[replace(each, origin=nowhere) for each in entries] for entries in (some, others)]
    return bare[0] == bare[1]


def _may_match(entries: Sequence[DeviceEntry], link: Link, ioctl: EthtoolIoctl) -> bool:
    """The driver is asked for its name only where an entry is about that."""
    if any(entry.name in (link.name, *link.alternative_names) for entry in entries):
        return True
    wide = [entry for entry in entries if entry.name is None]
    driver, bus = (wide and ioctl.driver(link.name)) or (None, None)
    return any(bus is not None if entry.all else driver == entry.driver for entry in wide)
