"""Protects devices of one network namespace: looks four times a second, and climbs the ladder of each device."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from napctl.attach.follow_devices import Readable
from napctl.attach.follow_words import TellOf
from napctl.kernel.links import Link, links
from napctl.kernel.monitor import Monitor
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Change, Guard, InstanceChange, Restored, Transaction, devices_of
from napctl.model.errors import Busy, NapctlError
from napctl.observe.machine import take_napi_devices, with_switches
from napctl.protect.flood_reader import FloodReader
from napctl.protect.groups import Protected, groups_of, matching, obstacle
from napctl.protect.ladder import (
    AGAIN_SECONDS,
    KINDS,
    WINDOW_SECONDS,
    Ladder,
    Move,
    StepKind,
    next_move,
    not_made,
)
from napctl.protect.protect_options import ProtectOptions
from napctl.protect.steps import step_words
from napctl.protect.steps_in_force import RolledBackByHand, StepsInForce
from napctl.protect.storm_totals import StormTotals

__all__ = ["Protection"]


LOOK_SECONDS = 30.0
"""Between two looks at what devices there are that nothing has caused."""
EVENT_SECONDS = 0.2
"""Between an event, of which there may be many, and the look that it causes."""
STRANGER_SECONDS = 1.0
"""The same, of a device that is not protected: it may be one that is to be, or one of containers that come and go."""
PAUSE_SECONDS = 1.0
"""After an error."""
JOURNAL_SECONDS = 1.0
"""Between two looks whether what is made still stands in the journal."""
MOST_SAID = 64
RESETS = ("link up", "napi ids", "rings", "channels")
"""Notices of what may have made NAPI instances anew."""


@dataclass(frozen=True)
class _Due:
    """A move, and whose."""

    group: Protected
    after: Ladder
    move: Move


class Protection:
    """Driven like a follower (attach/follow_many.py). `tell` receives each event; `guard` restores
    everything if this process is killed; `entry`: as of a Keeper; `clock`: time.monotonic()."""

    def __init__(
        self, netns: NetworkNamespace, options: ProtectOptions, guard: Guard, directory: Path,
        tell: TellOf, *, entry: str = "", clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self.options = options
        self._netns, self._tell, self._clock = netns, tell, clock
        self._steps = StepsInForce(
            netns, options.storm_control_per_second, guard, directory, tell, self._say, entry=entry
        )
        self._reader = FloodReader(netns, options.threshold)
        self._monitor: Monitor | None = None
        self._said: dict[tuple[str, str], None] = {}
        """Errors and obstacles, by device: each is said once, until a step is made."""
        self._look_at = self._window_at = self._journal_at = 0.0
        """When each is due, of the clock."""
        self._reset: set[int] = set()
        """Interface indexes of devices that were reset since the last look."""
        self._foreign: frozenset[int] = frozenset()
        """As the reader told it last: a CPU more, and interrupts may have been moved there."""
        self.groups: list[Protected] = []
        self.obstacles: dict[str, str] = {}
        """By device: why it is not protected."""
        self.made: dict[StepKind, int] = dict.fromkeys(KINDS, 0)
        """Steps made by now, of each kind."""
        self.storm = StormTotals()

    # For who drives it.

    @property
    def is_up(self) -> bool:
        """Whether any step is made."""
        return any(each.ladder.made for each in self.groups)

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
        ours = {each.ifindex for each in self.groups} | {getattr(each, "ifindex", 0) for each in self._steps.changes}
        self._reset |= ours & {each.ifindex for each in notices if each.what in RESETS}
        concerns = any(each.ifindex in ours or each.what == "lost" for each in notices)
        self._look_at = min(self._look_at, self._clock() + (EVENT_SECONDS if concerns else STRANGER_SECONDS))

    def look_anew(self) -> None:
        """At everything, by the next turn(): the machine has slept meanwhile."""
        self._look_at = self._window_at = self._journal_at = 0.0

    def turn(self) -> bool:
        """Look, and do what is to be done. Whether there is anything left to do: not once somebody else has put back
        what was made. Errors are told, and tried again."""
        now = self._clock()
        try:
            if now >= self._look_at and not self._tried("", self._look):
                self._look_at = min(self._look_at, now + PAUSE_SECONDS)
            if now >= self._window_at:  # also after a look that failed, as the next one may
                self._window_at = now + WINDOW_SECONDS
                if not self._tried("", lambda: self._window(now)):
                    self._window_at = now + PAUSE_SECONDS
        except RolledBackByHand:
            self._tell("", "somebody else has put back what protection had made: it makes nothing more")
            for each in self.groups:
                each.ladder = Ladder()
            return False
        return True

    def _tried(self, device: str, act: Callable[[], None]) -> bool:
        """Whether it came to its end; if not, why is told."""
        try:
            act()
        except (NapctlError, OSError) as error:
            self._say(device, str(error))
            return False
        return True

    def _look(self) -> None:
        self.look_for_devices()
        self.mind_storm_control()
        self.tell_obstacles()

    def take_restored(self) -> list[Restored]:
        """What became of each setting that was put back since the last time."""
        restored, self._steps.restored = self._steps.restored, []
        return restored

    def change_guard(self, guard: Guard) -> None:
        """That one is to restore what is made, from now on. Raises what take_over() raises."""
        self._steps.change_guard(guard)

    def adopt(self, live: Iterable[Transaction]) -> None:
        """What an earlier process of the service has in force. What caused it is not known. Raises NapctlError."""
        self._steps.adopt(live)

    def let_go(self) -> list[Restored]:
        """Put everything back. Raises what restore() raises; it can be repeated then."""
        names = {each.ifindex: each.device for each in self.groups}
        self.storm.add(self._steps.storm_counts())
        self._close()
        self._steps.put_back()
        for ifindex in self.storm.limiting:
            self._tell(names.get(ifindex, ""), self.storm.told(ifindex))
        return self.take_restored()

    def leave(self) -> None:
        """What is made stays so, with this process as its keeper, which will adopt it when it has executed itself
        anew."""
        self._close()
        self._steps.transaction = None

    # What there is.

    def look_for_devices(self) -> None:
        """Devices and their NAPI instances as they are now. Raises NapctlError, OSError, RolledBackByHand."""
        self._look_at = self._clock() + LOOK_SECONDS
        if self._monitor is None:
            self._monitor = Monitor(self._netns).__enter__()
        there = links(self._netns)
        wanted = matching(there, self.options)
        devices = {each.ifindex: each for each in with_switches(self._netns, take_napi_devices(self._netns))}
        self._drop({each.ifindex for each in there})
        found = (devices[each.ifindex] for each in wanted if each.ifindex in devices)
        self.groups = groups_of(found, self.options, self.groups)
        for each in self.groups:  # steps that another process has made
            if not each.ladder.made:
                each.ladder = replace(each.ladder, made=self._steps.kinds_of(each))
        self._put_back_strays({each.ifindex for each in wanted})
        self._reader.watch(wanted)
        self._note_obstacles(wanted, {ifindex for ifindex, each in devices.items() if each.napis})

    def mind_storm_control(self) -> None:
        """Attached where it is to be. What has lost its limits, as somebody took the program away, is to be limited
        anew. Raises as look_for_devices()."""
        self._steps.mind_storm_control(self.groups)
        for each in self.groups:
            if "storm control" in each.ladder.made and not self._steps.is_limited(each.ifindex):
                left = tuple(kind for kind in each.ladder.made if kind != "storm control")
                each.ladder = replace(each.ladder, made=left)

    def leave_out_impossible(self) -> None:
        """Storm control, of the steps, where mind_storm_control() would be refused; nothing is changed."""
        self._steps.leave_out_impossible(self.groups)

    def _put_back_strays(self, wanted: set[int]) -> None:
        back = self._steps.put_back_strays(self.groups, wanted)
        instances = {(each.ifindex, each.napi_id) for each in back if isinstance(each, InstanceChange)}
        for each in self.groups:
            if instances & {(each.ifindex, napi_id) for napi_id in each.napi_ids}:
                each.ladder = each.ladder.emptied
        for name in devices_of(back):
            self._tell(name, "what protection had made of it is put back, as nothing there is watched for it any more")

    def _drop(self, there: set[int]) -> None:
        """A flood that goes on has anew what a reset has taken."""
        reset = set(self._reset)
        gone, renewed = self._steps.drop(there, reset)
        self._reset -= reset
        for each in self.groups:
            if each.ifindex in reset and each.ladder.made:
                each.ladder = each.ladder.emptied
        for name in renewed:
            self._tell(name, "it was reset: protection begins anew")
        for name in gone:
            self._tell(name, "it has gone")

    def _note_obstacles(self, wanted: Sequence[Link], with_napis: set[int]) -> None:
        found = {each.name: each for each in wanted}
        known = {name for each in wanted for name in (each.name, *each.alternative_names)}
        self.obstacles = {}
        for name in (*found, *(each for each in self.options.devices or () if each not in known)):
            link = found.get(name)
            has_napis = link is not None and link.ifindex in with_napis
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
        if now >= self._journal_at and self._steps.transaction is not None:
            self._journal_at = now + JOURNAL_SECONDS
            self._steps.check()
            if self._steps.is_judged_by_old_rules():
                self._look_at = now
        due: list[_Due] = []
        self.storm.add(self._steps.storm_counts())
        floods = self._reader.read(self.groups, self.storm.by_device)
        if self._reader.foreign - self._foreign:
            self._look_at = min(self._look_at, now + EVENT_SECONDS)
        self._foreign = self._reader.foreign
        for group, seen in zip(self.groups, floods, strict=True):
            ladder, move = next_move(group.ladder, seen, now, self._steps.possible(group))
            if move is None:
                group.ladder = ladder
            else:
                due.append(_Due(group, ladder, move))
        for some in _alike(due):  # one that fails keeps no other from being made
            self._tried(some[0].group.device, partial(self._way_of(some[0].move), some))

    def _way_of(self, move: Move) -> Callable[[Sequence[_Due]], None]:
        if not move.up:
            return self._down
        return self._passed_over if move.starves else self._up

    def _passed_over(self, due: Sequence[_Due]) -> None:
        """A step of several groups of one device that would do harm."""
        (step,) = due[0].move.steps
        for each in due:
            each.group.ladder = each.after
        self._say(due[0].group.device, f"overload, and {step} is left out: {due[0].move.why}")

    def _up(self, due: Sequence[_Due]) -> None:
        """One step of several groups of one device, which counts as made where there is nothing to change."""
        (step,), device = due[0].move.steps, due[0].group.device
        refused: list[NapctlError] = []

        def left_out(_change: Change, error: NapctlError) -> bool:
            refused.append(error)
            return True

        changes: tuple[Change, ...] = ()
        try:
            changes = self._steps.make(step, [each.group for each in due], left_out)
        except Busy:  # tried again at the next window
            raise
        except NapctlError as error:
            refused.append(error)
        made = len(changes) > len(refused)
        for each in due:
            each.group.ladder = each.after if made or not refused else not_made(each.group.ladder, each.after)
        if made:
            self.made[step] += 1
            self._said.clear()
            self._tell(device, f"overload: {step_words(step, changes)}: {due[0].move.why}", "protect")
            self._look_at = min(self._look_at, self._clock() + EVENT_SECONDS)  # a thread may run on other CPUs
        if refused:
            self._say(device, f"overload, and {step} refused: {refused[0]}")

    def _down(self, due: Sequence[_Due]) -> None:
        groups, move = [each.group for each in due], due[0].move
        ifindex = groups[0].ifindex
        others = [each for each in self.groups if each.ifindex == ifindex and each not in groups]
        limited_for_others = any("storm control" in each.ladder.made for each in others)
        self.storm.add(self._steps.storm_counts())
        try:
            was_made = self._steps.take_back(groups, move.steps, pass_again=not limited_for_others)
        except Busy:  # tried again at the next window
            raise
        except NapctlError:
            for each in due:
                each.group.ladder = not_made(each.group.ladder, each.after)
            raise
        for each in due:
            each.group.ladder = each.after
        if was_made:
            self._tell(groups[0].device, _back_words(move), "protect")
            if "storm control" in move.steps and ifindex in self.storm.limiting and not limited_for_others:
                self._tell(groups[0].device, self.storm.told(ifindex))
            self._look_at = min(self._look_at, self._clock() + EVENT_SECONDS)

    def _say(self, device: str, line: str) -> None:
        """Once, until a step is made."""
        if (device, line) not in self._said:
            self._tell(device, line)
        self._said[device, line] = None
        while len(self._said) > MOST_SAID:
            del self._said[next(iter(self._said))]

    def _close(self) -> None:
        self._close_monitor()
        self._reader.close()
        self.groups = []

    def _close_monitor(self) -> None:
        if self._monitor is not None:
            with suppress(OSError):
                self._monitor.__exit__()
            self._monitor = None


def _back_words(move: Move) -> str:
    back = " and ".join(move.steps)
    if move.starves:
        minutes = f"{AGAIN_SECONDS / 60:.0f} minutes"
        return f"overload, and {back} put back, not to be made again for {minutes}: {move.why}"
    return f"overload is over: {back} put back: {move.why}"


def _alike(due: Iterable[_Due]) -> Iterator[list[_Due]]:
    """Those of one device that make the same move, together."""
    found: dict[tuple[object, ...], list[_Due]] = {}
    for each in due:
        found.setdefault((each.group.ifindex, each.move.up, each.move.starves, each.move.steps), []).append(each)
    yield from found.values()
