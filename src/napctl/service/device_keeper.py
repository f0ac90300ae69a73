"""Keeps the settings of the devices as the policy wants them: one transaction, which follows what they go through."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.follow_devices import Readable
from napctl.change.guard import myself
from napctl.change.journal import Journal
from napctl.change.recovery import is_adoptable
from napctl.change.takeover import leave, take_over
from napctl.change.transaction import amend, apply, begun, restore, undisturbed
from napctl.kernel import running_kernel
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.links import Link, links
from napctl.kernel.monitor import Monitor
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Change, Guard, NapiChange, Restored, Transaction, devices_of
from napctl.model.errors import NapctlError
from napctl.model.machine import Machine
from napctl.model.plan import settings
from napctl.model.policy import DeviceEntry
from napctl.model.settings import kernel_name
from napctl.model.units import duration_text
from napctl.observe.machine import take_machine
from napctl.service.device_plan import WantedChanges, setting_key, wanted_changes
from napctl.service.retries import Backoff, Objections
from napctl.service.snapshots import DeviceState

__all__ = ["DEVICES", "UNTIL", "DeviceKeeper"]


DEVICES = "devices"
"""The entry of the keeper (model/change.py)."""
UNTIL = "until the policy is changed or `napctl policy apply` asks for it"
LOOK_SECONDS = 30.0
"""Between two looks that nothing has caused."""
EVENT_SECONDS = 0.2
"""Between an event, of which there may be many, and the look that it causes."""
RESET_SECONDS = 5.0
"""A setting that is lost within such a time after its link came up was lost by that, and is nobody's objection."""


class DeviceKeeper:
    """Driven like a follower: turn() when it is due, take_notices() when one of sources() can be read.

    `held` tells the ids of NAPI instances that are attached; `tell` receives (device, line) of each decision. Once
    somebody else rolls its transaction back, nothing is set until there is another policy.
    """

    def __init__(
        self, netns: NetworkNamespace, guard: Guard, directory: Path, objections: Objections,
        tell: Callable[[str, str], None], held: Callable[[], Collection[int]],
    ):  # fmt: skip
        self._netns, self._guard, self._directory = netns, guard, directory
        self._objections, self._tell, self._held = objections, tell, held
        self._keeper = myself(DEVICES)
        self._entries: Sequence[DeviceEntry] = ()
        self._transaction: Transaction | None = None
        self._monitor: Monitor | None = None
        self._backoff = Backoff()
        self._due_at = 0.0
        self._came_up: dict[int, float] = {}
        """By interface index."""
        self._names: Collection[str] = ()
        self._problems: Mapping[str, str] = {}
        self._changed_unix_ns: dict[str, int] = {}
        self.rolled_back = False

    def keep(self, entries: Sequence[DeviceEntry]) -> None:
        """These from now on: at the next turn()."""
        if not _same(entries, self._entries):
            self.rolled_back = False
        self._entries, self._due_at = tuple(entries), 0.0

    def adopt(self, live: Iterable[Transaction], kept: int) -> None:
        """What an earlier process of the service has in force: no setting is written. `kept`: number of what it has
        left without a keeper, as who applies a plan by hand does too."""
        for each in live:
            mine = each.keeper.entry == DEVICES if each.keeper else each.number == kept
            if each.kind == "apply" and mine and is_adoptable(each):
                with undisturbed(), Journal(self._directory) as journal:
                    self._transaction = take_over(journal, each, self._guard, self._keeper)
                self._tell("", f"took over the settings of {each.name}")

    @property
    def settings_in_force(self) -> Transaction | None:
        """What was set and stands."""
        return self._transaction

    @property
    def names(self) -> Collection[str]:
        """Of the devices that an entry matched at the last look."""
        return self._names

    def states(self) -> dict[str, DeviceState]:
        """For metrics, by device: settings that are not as the policy wants them, and those left to somebody else."""
        left = [key.split()[0] for key in self._objections.left]
        return {
            name: DeviceState(
                drift=left.count(name) + (name in self._problems),
                conflicts=left.count(name),
                changed_unix_ns=self._changed_unix_ns.get(name),
            )
            for name in self._names
        }

    def sources(self) -> tuple[Readable, ...]:
        """What can be read when take_notices() is to be called."""
        return self._monitor.sources if self._monitor is not None else ()

    def take_notices(self) -> None:
        """Something has happened to a device."""
        if self._monitor is None:
            return
        now = time.monotonic()
        try:
            notices = list(self._monitor.waiting())
        except OSError:
            self._close_monitor()
            self._due_at = min(self._due_at, now + EVENT_SECONDS)
            return
        for notice in notices:
            if notice.what in ("link up", "napi ids", "rings", "channels", "lost"):
                self._came_up[notice.ifindex] = now
        if notices:
            self._due_at = min(self._due_at, now + EVENT_SECONDS)

    def seconds_left(self, now: float) -> float:
        """Until turn() is due, of time.monotonic()."""
        if not self._entries and self._transaction is None:
            return float("inf")
        return max(0.0, min(self._due_at - now, self._backoff.seconds_left(now)))

    def turn(self) -> None:
        """Look, and set what differs. Errors are told, and tried again later."""
        now = time.monotonic()
        self._due_at = now + LOOK_SECONDS
        if not self._backoff.is_due(DEVICES, now):
            return
        try:
            self._look(now)
        except (NapctlError, OSError) as error:
            pause = self._backoff.failed(DEVICES, now)
            self._due_at = now + pause
            self._tell("", f"devices: {error}; tried again in {duration_text(int(pause * 1e9))}")
        else:
            self._backoff.succeeded(DEVICES)

    def differs(self) -> tuple[Change, ...]:
        """What the next turn would change, read now. Raises NapctlError."""
        machine = self._matched()
        return wanted_changes(self._entries, machine, self._held(), self._objections.left).changes

    def change_guard(self, guard: Guard) -> None:
        """That one is to restore what is set, from now on. Raises what take_over() raises."""
        self._guard = guard
        if self._transaction is not None:
            with undisturbed(), Journal(self._directory) as journal:
                self._transaction = take_over(journal, self._transaction, guard, self._keeper)

    def let_go(self) -> list[Restored]:
        """Put everything back. Raises what restore() raises; it can be repeated then."""
        self._close_monitor()
        transaction, rows = self._transaction, []
        if transaction is not None:
            with undisturbed(), Journal(self._directory) as journal:
                if (recorded := self._recorded(journal)) is not None:
                    rows = restore(journal, recorded)
        self._transaction = None
        return rows

    def leave(self, *, kept: bool = False) -> None:
        """What is set stays so, without a keeper, or (`kept`) with this process as its keeper."""
        if self._transaction is not None and not kept:
            with undisturbed(), Journal(self._directory) as journal:
                leave(journal, self._transaction)
        self._transaction = None
        self._close_monitor()

    def _look(self, now: float) -> None:
        if self._monitor is None and self._entries:
            self._monitor = Monitor(self._netns).__enter__()
        if self.rolled_back or not (self._entries or self._transaction):
            return
        machine = self._matched()
        asked = wanted_changes(self._entries, machine, self._held(), self._objections.left)
        self._names, self._problems = [each.name for each in machine.devices], asked.problems
        for device, why in asked.problems.items():
            self._tell(device, f"left as it is: {why}")
        if self._transaction is not None:
            self._object(asked.changes, self._transaction, now)
            asked = wanted_changes(self._entries, machine, self._held(), self._objections.left)
        gone, unwanted = self._outdated(machine, asked)
        if not (asked.changes or gone or unwanted):
            return
        with undisturbed(), Journal(self._directory) as journal:
            if self._transaction is not None and self._recorded(journal) is None:
                self._transaction, self.rolled_back = None, True
                self._tell("", f"devices: somebody has rolled their settings back; left so {UNTIL}")
                return
            self._set(journal, asked.changes, gone, unwanted)

    def _matched(self) -> Machine:
        """With the devices that an entry matches, and those that are set; of others nothing is read."""
        set_now = set(devices_of(self._transaction.changes)) if self._transaction is not None else set()
        names = []
        with EthtoolIoctl(self._netns) as ioctl:
            for link in links(self._netns):
                driver, bus = ioctl.driver(link.name) or (None, None)
                if link.name in set_now or any(_may_match(each, link, driver, bus) for each in self._entries):
                    names.append(link.name)
        if not names:
            return Machine(kernel=running_kernel.kernel_release(), netns=self._netns.inode, devices=(), pollers=())
        return take_machine(self._netns, names, with_pollers=False)

    def _set(
        self, journal: Journal, asked: Sequence[Change], gone: Sequence[Change], unwanted: Sequence[Change]
    ) -> None:
        if self._transaction is None:
            names = devices_of(asked)
            fresh = begun("apply", ", ".join(names), tuple(asked), guard=self._guard, keeper=self._keeper)
            self._transaction = apply(journal, fresh, then="applied", leave_out=self._left_out)
        else:
            again = [each for each in self._transaction.changes if any(_is_repeated(each, one) for one in asked)]
            self._transaction = amend(
                journal, self._transaction, more=asked, without=unwanted, forget=(*gone, *again),
                leave_out=self._left_out,
            )  # fmt: skip
            names = devices_of(self._transaction.changes)
            self._transaction = journal.update(replace(self._transaction, name=", ".join(names)), "applied")
        for change in unwanted:
            self._tell(_device(change), f"{change.where}: put back, as the policy no longer names it")
        made = set(map(_object, self._transaction.changes))
        for change in asked:
            if _object(change) in made:
                self._changed_unix_ns[_device(change)] = time.time_ns()
                self._tell(_device(change), f"{change.where}: {', '.join(_words(change))}")
        if not self._transaction.changes:
            journal.set_state(self._transaction.number, "restored")
            self._transaction = None

    def _left_out(self, change: Change, error: NapctlError) -> bool:
        """One that is refused does not keep the others from being set."""
        key = _device(change)
        pause = self._backoff.failed(key, time.monotonic())
        self._tell(key, f"{change.where}: {error}; tried again in {duration_text(int(pause * 1e9))}")
        return True

    def _object(self, differing: Iterable[Change], transaction: Transaction, now: float) -> None:
        """What was set and is not any more was changed by somebody else, unless its link has just come up."""
        ours = {_object(each): each for each in transaction.changes}
        lost: dict[str, str] = {}
        for change in differing:
            mine, came_up = ours.get(_object(change)), self._came_up.get(getattr(change, "ifindex", 0), float("-inf"))
            if mine is not None and now - came_up >= RESET_SECONDS:
                kept = dict(settings(mine.after))
                fields = (name for name, value in settings(change.after) if kept.get(name) == value)
                lost |= {setting_key(change, name): _device(change) for name in fields}
        for key, device in lost.items():  # however many NAPI instances have lost it
            if self._objections.heard(key, now):
                self._tell(device, f"{key}: somebody else keeps changing it; left to him {UNTIL}")

    def _outdated(self, machine: Machine, asked: WantedChanges) -> tuple[list[Change], list[Change]]:
        """Of what is in force: whose objects have gone, and what is not wanted any more."""
        if self._transaction is None:
            return [], []
        there = {device.ifindex: {napi.napi_id for napi in device.napis} for device in machine.devices}
        elsewhere = {link.ifindex for link in links(self._netns)} - there.keys()
        gone, unwanted = [], []
        for change in self._transaction.changes:
            ifindex = getattr(change, "ifindex", 0)
            napis = there.get(ifindex)
            removed = napis is None and ifindex not in elsewhere
            renumbered = isinstance(change, NapiChange) and napis and change.napi_id not in napis
            if removed or renumbered:
                gone.append(change)
            elif not any(setting_key(change, name) in asked.wanted for name, _ in settings(change.after)):
                unwanted.append(change)
        return gone, unwanted

    def _recorded(self, journal: Journal) -> Transaction | None:
        assert self._transaction is not None
        number = self._transaction.number
        return next((each for each in journal.live() if each.number == number), None)

    def _close_monitor(self) -> None:
        if self._monitor is not None:
            with suppress(OSError):
                self._monitor.__exit__()
            self._monitor = None


def _same(some: Sequence[DeviceEntry], others: Sequence[DeviceEntry]) -> bool:
    """But for where they stand."""
    bare = [[replace(each, origin=some[0].origin) for each in entries] if some else [] for entries in (some, others)]
    return bare[0] == bare[1] and len(some) == len(others)


def _may_match(entry: DeviceEntry, link: Link, driver: str | None, bus: str | None) -> bool:
    if entry.name is not None:
        return entry.name in (link.name, *link.alternative_names)
    return bus is not None if entry.all else driver == entry.driver


def _object(change: Change) -> tuple[object, ...]:
    return (
        type(change), getattr(change, "ifindex", 0), getattr(change, "queue", None), getattr(change, "napi_id", None)
    )  # fmt: skip


def _is_repeated(earlier: Change, again: Change) -> bool:
    """The same once more: what is to be restored is known already, and is the same."""
    if _object(earlier) != _object(again):
        return False
    before, after = dict(settings(earlier.before)), dict(settings(earlier.after))
    same = all(
        after.get(name) == value and before.get(name) == getattr(again.before, name)
        for name, value in settings(again.after)
    )
    return same and after.keys() == dict(settings(again.after)).keys()


def _words(change: Change) -> Iterator[str]:
    for name, value in settings(change.after):
        was = getattr(change.before, name)
        one, other = (_value(name, each) for each in (was, value))
        yield f"{kernel_name(name)} {one} → {other}"


def _value(name: str, value: object) -> str:
    return duration_text(value) if name.endswith("_ns") and isinstance(value, int) else str(value)


def _device(change: Change) -> str:
    return getattr(change, "device", "")
