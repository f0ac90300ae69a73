"""Protects devices of one network namespace: looks four times a second, and makes the steps of the ladder in one
transaction, which ends with the flood."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.follow_devices import Readable
from napctl.change.guard import myself
from napctl.change.journal import Journal
from napctl.change.recovery import is_adoptable
from napctl.change.takeover import leave, take_over
from napctl.change.transaction import amend, apply, begun, restore, undisturbed
from napctl.kernel.links import Link, links
from napctl.kernel.monitor import Monitor
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Change, Guard, Restored, Transaction, devices_of
from napctl.model.errors import NapctlError
from napctl.observe.machine import take_napi_devices
from napctl.protect.flood_reader import FloodReader
from napctl.protect.groups import Protected, groups_of, matching, obstacle
from napctl.protect.ladder import KINDS, WINDOW_SECONDS, Ladder, Move, StepKind, next_move, not_made
from napctl.protect.protect_options import ProtectOptions
from napctl.protect.steps import changes_of_step, held_elsewhere, of_step, step_words

__all__ = ["PROTECTION", "Protection"]


PROTECTION = "protection"
"""The entry of the service's keeper (model/change.py)."""
LOOK_SECONDS = 30.0
"""Between two looks at what devices there are that nothing has caused."""
EVENT_SECONDS = 0.2
"""Between an event, of which there may be many, and the look that it causes."""
PAUSE_SECONDS = 1.0
"""After an error."""
MOST_SAID = 64


@dataclass(frozen=True)
class _Due:
    """A move, and whose."""

    group: Protected
    after: Ladder
    move: Move


class Protection:
    """Driven like a follower (attach/follow_many.py). `tell` receives (device, line) for each event; `guard` restores
    everything if this process is killed; `entry`: as of a Keeper; `clock`: time.monotonic()."""

    def __init__(
        self, netns: NetworkNamespace, options: ProtectOptions, guard: Guard, directory: Path,
        tell: Callable[[str, str], None], *, entry: str = "", clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self.options = options
        self._netns, self._guard, self._directory = netns, guard, directory
        self._tell, self._clock = tell, clock
        self._keeper = myself(entry)
        self._reader = FloodReader(netns, options.threshold)
        self._monitor: Monitor | None = None
        self._transaction: Transaction | None = None
        self._restored: list[Restored] = []
        self._said: dict[tuple[str, str], None] = {}
        """Errors and obstacles, by device: each is said once, until a step is made."""
        self._look_at = self._window_at = 0.0
        self._reset: set[int] = set()
        """Interface indexes of devices that were reset since the last look."""
        self.groups: list[Protected] = []
        self.obstacles: dict[str, str] = {}
        """By device: why it is not protected."""
        self.made: dict[StepKind, int] = dict.fromkeys(KINDS, 0)
        """Steps made by now, of each kind."""
        self.rolled_back = False
        """Somebody else has put back what was made: nothing more is made."""

    # For who drives it.

    @property
    def in_force(self) -> Transaction | None:
        """Steps that are made."""
        return self._transaction

    @property
    def busy_cpus(self) -> frozenset[int] | None:
        """CPUs that take packets of what is protected; None: nothing tells."""
        told = [each.cpus for each in self.groups]
        return None if None in told else frozenset(cpu for cpus in told if cpus is not None for cpu in cpus)

    def step_of(self, device: str) -> int | None:
        """How high its protection stands, from 0; None: it is not protected."""
        made = [each.ladder.made for each in self.groups if each.device == device]
        return max((KINDS.index(each[-1]) + 1 if each else 0 for each in made), default=None)

    def seconds_left(self, now: float) -> float:
        """Until turn() is due."""
        return max(0.0, min(self._look_at, self._window_at if self.groups else float("inf")) - now)

    def sources(self, _now: float) -> Sequence[Readable]:
        """What can be read when take_notices() is to be called."""
        return self._monitor.sources if self._monitor is not None else ()

    def take_notices(self) -> None:
        """Something has happened to a device."""
        if self._monitor is None:
            return
        try:
            notices = list(self._monitor.waiting())
        except OSError:
            self._close_monitor()
            notices = []
        ours = {each.ifindex for each in self.groups} | set(map(_ifindex, self._changes))
        resets = (each for each in notices if each.what in ("link up", "napi ids", "rings", "channels"))
        self._reset |= ours & {each.ifindex for each in resets}
        self._look_at = min(self._look_at, self._clock() + EVENT_SECONDS)

    def turn(self) -> bool:
        """Look, and do what is to be done. Whether there is anything left to do: not once somebody else has put back
        what was made. Errors are told, and tried again."""
        now = self._clock()
        try:
            if now >= self._look_at:
                self.look_for_devices()
                self.tell_obstacles()
            if now >= self._window_at:
                self._window_at = now + WINDOW_SECONDS
                self._window(now)
        except (NapctlError, OSError) as error:
            self._say("", str(error))
            self._window_at = max(self._window_at, now + PAUSE_SECONDS)
            self._look_at = min(self._look_at, now + PAUSE_SECONDS)
        return not self.rolled_back

    def take_restored(self) -> list[Restored]:
        """What became of each setting that was put back since the last time."""
        restored, self._restored = self._restored, []
        return restored

    def change_guard(self, guard: Guard) -> None:
        """That one is to restore what is made, from now on. Raises what take_over() raises."""
        self._guard = guard
        if self._transaction is not None:
            with undisturbed(), Journal(self._directory) as journal:
                self._transaction = take_over(journal, self._transaction, guard, self._keeper)

    def adopt(self, live: Iterable[Transaction]) -> None:
        """What an earlier process of the service has in force: no setting is written. What caused it is not known."""
        for each in live:
            mine = each.keeper is not None and each.keeper.entry == PROTECTION
            if each.kind == "protect" and mine and is_adoptable(each):
                with undisturbed(), Journal(self._directory) as journal:
                    self._transaction = take_over(journal, each, self._guard, self._keeper)
                self._tell("", f"took over the protection of {each.name}")

    def let_go(self) -> list[Restored]:
        """Put everything back. Raises what restore() raises; it can be repeated then."""
        self._close_monitor()
        if self._transaction is not None:
            with undisturbed(), Journal(self._directory) as journal:
                if (recorded := self._recorded(journal)) is not None:
                    self._restored += restore(journal, recorded)
            self._transaction = None
        self.groups = []
        self._reader.close()
        return self.take_restored()

    def leave(self, *, kept: bool = False) -> None:
        """What is made stays so, without a keeper, or (`kept`) with this process as its keeper."""
        if self._transaction is not None and not kept:
            with undisturbed(), Journal(self._directory) as journal:
                leave(journal, self._transaction)
        self._transaction = None
        self._close_monitor()
        self._reader.close()

    # What there is.

    def look_for_devices(self) -> None:
        """Devices and their NAPI instances as they are now. Raises NapctlError, OSError."""
        self._look_at = self._clock() + LOOK_SECONDS
        if self._monitor is None:
            self._monitor = Monitor(self._netns).__enter__()
        reset, self._reset = self._reset, set()
        there = links(self._netns)
        wanted = matching(there, self.options)
        devices = {each.ifindex: each for each in take_napi_devices(self._netns)}
        self._drop({each.ifindex for each in there}, reset)
        self.groups = groups_of((devices[each.ifindex] for each in wanted if each.ifindex in devices), self.options,
                                self.groups)  # fmt: skip
        self._stand_where_it_stood()
        self._reader.watch(wanted)
        self._note_obstacles(there, wanted, {ifindex: bool(each.napis) for ifindex, each in devices.items()})

    def _drop(self, there: set[int], reset: set[int]) -> None:
        """What was made of devices that have gone is forgotten; of those that were reset it is undone as a whole, as
        nobody knows which part of it a reset has left: a flood that goes on has it made anew."""
        gone = [each for each in self._changes if _ifindex(each) not in there]
        renewed = [each for each in self._changes if _ifindex(each) in reset & there]
        if gone or renewed:
            with undisturbed(), Journal(self._directory) as journal:
                if self._is_rolled_back(journal):
                    return
                assert self._transaction is not None
                self._transaction = amend(journal, self._transaction, without=renewed, forget=gone)
                self._end_what_is_empty(journal)
            for each in self.groups:
                if each.ifindex in reset and each.ladder.made:
                    each.ladder = Ladder(changed_at=each.ladder.changed_at)
            for name in devices_of(renewed):
                self._tell(name, "it was reset: protection begins anew")
        for name in devices_of(gone):
            self._tell(name, "it has gone")

    def _stand_where_it_stood(self) -> None:
        """Steps that another process has made."""
        for each in self.groups:
            if each.ladder.made:
                continue
            kinds = {of_step(change) for change in self._changes_of([each])}
            if kinds:
                each.ladder = Ladder(made=tuple(kind for kind in KINDS if kind in kinds))

    def _note_obstacles(self, there: Sequence[Link], wanted: Sequence[Link], with_napis: dict[int, bool]) -> None:
        found = {each.name: each for each in wanted}
        known = {name for each in wanted for name in (each.name, *each.alternative_names)}
        missing = [each for each in self.options.devices or () if each not in known]
        self.obstacles = {}
        for name in (*found, *missing):
            link = found.get(name)
            has_napis = link is not None and with_napis.get(link.ifindex, False)
            if why := obstacle(name, link, self.groups, has_napis=has_napis):
                self.obstacles[name] = why

    def tell_obstacles(self) -> None:
        """Each that is new: devices that are not protected, and what protection cannot do."""
        for name, why in self.obstacles.items():
            self._say(name, f"not protected: {why}")
        for name, why in self._reader.doubts():
            self._say(name, why)

    # A window.

    def _window(self, now: float) -> None:
        due: list[_Due] = []
        for group, seen in zip(self.groups, self._reader.read(self.groups), strict=True):
            ladder, move = next_move(group.ladder, seen, now, group.steps)
            if move is None:
                group.ladder = ladder
            else:
                due.append(_Due(group, ladder, move))
        for some in _alike(due):
            if some[0].move.up:
                self._up(some)
            else:
                self._down(some)

    def _up(self, due: Sequence[_Due]) -> None:
        """One step of several groups of one device, which counts as made where there is nothing to change."""
        (step,), device = due[0].move.steps, due[0].group.device
        refused: list[NapctlError] = []

        def left_out(_change: Change, error: NapctlError) -> bool:
            refused.append(error)
            return True

        napis = [napi for each in due for napi in each.group.napis]
        changes: tuple[Change, ...] = ()
        try:
            with undisturbed(), Journal(self._directory) as journal:
                if self._is_rolled_back(journal):
                    return
                own = self._transaction.number if self._transaction is not None else 0
                held = held_elsewhere(journal.live(), own)
                changes = changes_of_step(step, self._netns.inode, device, napis, held)
                if changes:
                    self._make(journal, changes, left_out)
        except NapctlError as error:
            refused += [error] * max(1, len(changes))
        made = not changes or len(refused) < len(changes)
        for each in due:
            each.group.ladder = each.after if made else not_made(each.group.ladder, each.after)
        if len(refused) < len(changes):
            self.made[step] += 1
            self._said.clear()
            self._tell(device, f"overload: {step_words(step, changes)}: {due[0].move.why}")
            self._look_at = min(self._look_at, self._clock() + EVENT_SECONDS)  # a thread may run on other CPUs
        if refused:
            self._say(device, f"overload, and {step} refused: {refused[0]}")

    def _make(
        self, journal: Journal, changes: tuple[Change, ...], left_out: Callable[[Change, NapctlError], bool]
    ) -> None:
        if self._transaction is None:
            names = ", ".join(devices_of(changes))
            fresh = begun("protect", names, changes, guard=self._guard, keeper=self._keeper)
            self._transaction = apply(journal, fresh, then="applied", leave_out=left_out)
        else:
            names = ", ".join(devices_of((*self._transaction.changes, *changes)))
            named = replace(self._transaction, name=names)
            self._transaction = amend(journal, named, more=changes, leave_out=left_out)
        self._end_what_is_empty(journal)

    def _down(self, due: Sequence[_Due]) -> None:
        groups = [each.group for each in due]
        mine = self._changes_of(groups)
        if mine:
            with undisturbed(), Journal(self._directory) as journal:
                if self._is_rolled_back(journal):
                    return
                assert self._transaction is not None
                if len(mine) == len(self._changes):
                    self._restored += restore(journal, self._transaction)
                    self._transaction = None
                else:
                    self._transaction = amend(journal, self._transaction, without=mine)
        for each in due:
            each.group.ladder = each.after
        if mine:
            back = " and ".join(due[0].move.steps)
            self._tell(groups[0].device, f"overload is over: {back} put back: {due[0].move.why}")
            self._look_at = min(self._look_at, self._clock() + EVENT_SECONDS)

    # The transaction.

    @property
    def _changes(self) -> tuple[Change, ...]:
        return self._transaction.changes if self._transaction is not None else ()

    def _changes_of(self, groups: Sequence[Protected]) -> list[Change]:
        ids = {(each.ifindex, napi_id) for each in groups for napi_id in each.napi_ids}
        return [each for each in self._changes if (_ifindex(each), getattr(each, "napi_id", 0)) in ids]

    def _recorded(self, journal: Journal) -> Transaction | None:
        number = self._transaction.number if self._transaction is not None else 0
        return next((each for each in journal.live() if each.number == number), None)

    def _is_rolled_back(self, journal: Journal) -> bool:
        """Somebody may have put back what was made."""
        if self._transaction is None or self._recorded(journal) is not None:
            return False
        self._transaction, self.rolled_back = None, True
        for each in self.groups:
            each.ladder = Ladder()
        self._tell("", "somebody else has put back what protection had made: it makes nothing more")
        return True

    def _end_what_is_empty(self, journal: Journal) -> None:
        if self._transaction is not None and not self._transaction.changes:
            journal.set_state(self._transaction.number, "restored")
            self._transaction = None

    def _say(self, device: str, line: str) -> None:
        """Once, until a step is made."""
        if (device, line) not in self._said:
            self._tell(device, line)
        self._said[device, line] = None
        while len(self._said) > MOST_SAID:
            del self._said[next(iter(self._said))]

    def _close_monitor(self) -> None:
        if self._monitor is not None:
            with suppress(OSError):
                self._monitor.__exit__()
            self._monitor = None


def _ifindex(change: Change) -> int:
    return getattr(change, "ifindex", 0)


def _alike(due: Iterable[_Due]) -> Iterator[list[_Due]]:
    """Those of one device that make the same move, together."""
    found: dict[tuple[object, ...], list[_Due]] = {}
    for each in due:
        found.setdefault((each.group.ifindex, each.move.up, each.move.steps), []).append(each)
    yield from found.values()
