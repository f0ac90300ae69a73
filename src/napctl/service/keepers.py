"""All that a policy names, each with its keeper: targets, devices, protection. And what could not be put back yet."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from napctl.attach.follow_devices import Readable
from napctl.attach.follow_many import take_turns, wait_for_any
from napctl.attach.follow_words import TellOf
from napctl.attach.objections import Objections
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.service_manager import notify
from napctl.model.change import Guard, InstanceChange, Transaction
from napctl.model.errors import NapctlError
from napctl.model.other_manager import Held, held_by
from napctl.model.policy import AttachEntry, Policy
from napctl.protect.steps_in_force import PROTECTION
from napctl.service.device_keeper import DEVICES, UNTIL, DeviceKeeper
from napctl.service.protection_keeper import ProtectionKeeper
from napctl.service.service_memory import ServiceMemory
from napctl.service.snapshots import DeviceState
from napctl.service.target_keeper import TargetKeeper

__all__ = ["BY_HAND", "ServiceKeepers", "told"]


OWED_SECONDS = 5.0
"""Until what could not be put back is tried again."""
BY_HAND = f"detached by hand: left so {UNTIL}"

Keeper = TargetKeeper | DeviceKeeper | ProtectionKeeper


@contextmanager
def told(tell: TellOf, about: str = "") -> Iterator[None]:
    """What goes wrong meanwhile is said, and does not end the service."""
    try:
        yield
    except (NapctlError, OSError) as error:
        tell(about, str(error), "retry")


class ServiceKeepers:
    """Of one service. What goes wrong is told, and tried again."""

    def __init__(
        self, netns: NetworkNamespace, guard: Guard, directory: Path, objections: Objections, of_devices: Objections,
        tell: TellOf,
    ):  # fmt: skip
        self._netns, self._guard, self._directory = netns, guard, directory
        self._objections, self._tell = objections, tell
        self.targets: list[TargetKeeper] = []
        self.devices = DeviceKeeper(netns, guard, directory, of_devices, tell, self._held_napis)
        self.protection = ProtectionKeeper(netns, guard, directory, tell)
        self.owed: list[Keeper] = []
        """Those of which not all could be put back yet."""
        self._owed_at = 0.0
        self.left = False
        """Somebody else had changed what was to be put back."""

    def __iter__(self) -> Iterator[Keeper]:
        """Those that keep something; not those that only owe."""
        return iter((*self.targets, self.devices, self.protection))

    @property
    def _all(self) -> Collection[Keeper]:
        return dict.fromkeys((*self, *self.owed))

    # What they are to keep.

    def take_up(self, policy: Policy, live: Sequence[Transaction], memory: ServiceMemory) -> bool:
        """All of it, upon what an earlier process has left. False: what that set on devices could not be taken over."""
        for entry in policy.attach:
            self._follow(entry, by_hand=entry.target in memory.detached)
        adopted = False
        with told(self._tell):
            self.devices.adopt(live, memory.kept)
            adopted = True
        self.devices.keep(policy.devices)
        self.devices.rolled_back = DEVICES in memory.detached
        self.protection.keep(policy.protect)
        self.protection.rolled_back = PROTECTION in memory.detached
        with told(self._tell):
            self.protection.arm()
        return adopted

    def change(self, policy: Policy) -> None:
        """What differs from the policy before."""
        for keeper in tuple(self.targets):
            if not any(map(keeper.is_of, policy.attach)):
                named = any(each.target == keeper.name for each in policy.attach)
                self._let_go(keeper, "its entry is another one now" if named else "the policy no longer names it")
                self.targets.remove(keeper)
        there = {each.name for each in self.targets}
        self.try_anew(policy)
        for entry in policy.attach:
            if entry.target not in there:
                self._follow(entry)

    def try_anew(self, policy: Policy) -> None:
        """What was left to others, or was detached by hand."""
        for each in self.targets:
            each.try_anew()
        self.devices.rolled_back = False
        self.devices.keep(policy.devices)
        self.protection.keep(policy.protect)

    def _follow(self, entry: AttachEntry, *, by_hand: bool = False) -> None:
        tell = partial(self._tell, entry.target)
        keeper = TargetKeeper(entry, self._guard, self._directory, tell, self._objections)
        self.targets.append(keeper)
        if by_hand:
            keeper.by_hand = True
            self._tell(entry.target, BY_HAND, "detach")
        else:
            keeper.begin()

    # From turn to turn.

    def turn(self, stopped: Callable[[], bool]) -> None:
        """Whatever is due."""
        self._protect()
        for each, _goes_on in take_turns(tuple(self.targets)):
            self.left |= any(row.outcome == "left" for row in each.take_restored())
            notify("WATCHDOG=1")
            if stopped():
                return
            self._protect()
        if not self.devices.seconds_left(time.monotonic()):
            self.devices.turn()

    def _protect(self) -> None:
        """Also between two targets: a flood is answered within a second."""
        if not self.protection.seconds_left(time.monotonic()):
            self.protection.turn()

    def wait(self, wake: Sequence[Readable], seconds: float, *, paused: bool) -> frozenset[int]:
        """Until something is due, something happens to what is kept, one of `wake` can be read (those are returned), or
        the time is over."""
        now, others = time.monotonic(), (self.devices, self.protection)
        seconds = min(seconds, *((each.seconds_left(now) for each in others) if not paused else ()), self._owed_in(now))
        sources = {source.fileno(): each for each in others for source in each.sources()}
        awake = wait_for_any(self.targets, [*wake, *sources], max(0.0, seconds))
        for each in {sources[fd] for fd in awake & sources.keys()}:
            each.take_notices()
        return awake

    def change_guard(self, guard: Guard) -> None:
        """Everything is to name that one. Raises what take_over() raises."""
        self._guard = guard
        for each in self._all:
            each.change_guard(guard)

    def look_anew(self) -> None:
        """The machine has slept: all may be otherwise, and what was to be tried again has waited for a clock that stood
        still."""
        for each in self._all:
            each.look_anew()
        self._owed_at = 0.0

    # Putting back.

    def let_go(self, why: str) -> None:
        """Of everything."""
        for each in self:
            self._let_go(each, why)
        self.targets.clear()

    def put_back_what_is_owed(self) -> None:
        """If it is time."""
        if self.owed and time.monotonic() >= self._owed_at:
            owed, self.owed = self.owed, []
            for keeper in owed:
                self._let_go(keeper, "owed since before")

    def end(self, *, keep: bool, renew: bool) -> list[NapctlError]:
        """Put everything back, or leave it to the process that comes; what cannot be put back."""
        errors: list[NapctlError] = []
        for each in self._all:
            try:
                if keep:
                    each.leave(kept=renew)
                else:
                    self.left |= any(row.outcome == "left" for row in each.let_go())
            except (NapctlError, OSError) as error:
                errors.append(error if isinstance(error, NapctlError) else NapctlError(str(error)))
        return errors

    def _let_go(self, keeper: Keeper, why: str) -> None:
        """What cannot be put back now is owed."""
        name, attached = (keeper.name, keeper.attached) if isinstance(keeper, TargetKeeper) else ("", None)
        try:
            self.left |= any(row.outcome == "left" for row in keeper.let_go())
        except (NapctlError, OSError) as error:
            self._tell(name, f"not all could be put back: {error}; tried again in {OWED_SECONDS:.0f}s", "retry")
            self.owed.append(keeper)
            self._owed_at = time.monotonic() + OWED_SECONDS
            return
        if attached is not None:
            self._tell(name, f"put back {attached.title}: {why}", "restore")

    def _owed_in(self, now: float) -> float:
        return self._owed_at - now if self.owed else float("inf")

    # What is known of them.

    @property
    def detached_by_hand(self) -> tuple[str, ...]:
        """Targets by name, DEVICES and PROTECTION: what somebody else has put back as a whole."""
        detached = [each.name for each in self.targets if each.by_hand]
        detached += [DEVICES] if self.devices.rolled_back else []
        return (*detached, *([PROTECTION] if self.protection.rolled_back else []))

    @property
    def device_names(self) -> frozenset[str]:
        """Of this network namespace: those that are kept, are protected, or feed a target."""
        attached = {each.device for each in self._napis()}
        return frozenset({*self.devices.names, *self.protection.device_names, *attached})

    def device_states(self) -> dict[str, DeviceState]:
        """For metrics."""
        return self.protection.with_steps(self.devices.states())

    @property
    def held(self) -> tuple[Held, ...]:
        """What of the devices is set."""
        in_force = self.devices.settings_in_force
        return held_by(in_force.changes, self._netns.inode) if in_force is not None else ()

    def _held_napis(self) -> frozenset[int]:
        return frozenset(each.napi_id for each in self._napis())

    def _napis(self) -> Iterator[InstanceChange]:
        napis = (each for keeper in self.targets for each in keeper.napis)
        return (each for each in napis if each.netns == self._netns.inode)
