"""Keeps `[protect]` of a policy: arms protection, disarms it, and goes on with what an earlier process has made."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from napctl.attach.follow_devices import Readable
from napctl.attach.follow_words import TellOf
from napctl.change.journal import Journal
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.own_cpu import allowed_cpus, away_from, chosen_cpus
from napctl.model.change import Guard, Restored
from napctl.model.cpus import cpus_text
from napctl.model.errors import NapctlError
from napctl.model.policy import ProtectEntry
from napctl.model.storm import BY_REASON, Reason
from napctl.protect.keep_running import BusyCpus
from napctl.protect.ladder import KINDS, StepKind
from napctl.protect.protect_options import ProtectOptions
from napctl.protect.protection import Protection
from napctl.protect.steps_in_force import PROTECTION
from napctl.service.snapshots import DeviceState

__all__ = ["ProtectionKeeper"]


AGAIN_SECONDS = 5.0
"""Until what could not be put back, or not be begun, is tried again."""


class ProtectionKeeper:
    """Driven like the keeper of the devices: turn() when it is due, take_notices() when one of sources() can be read.

    `tell` receives each decision. Once somebody else rolls back what was made, nothing is made until
    there is another policy.
    """

    def __init__(self, netns: NetworkNamespace, guard: Guard, directory: Path, tell: TellOf):
        self._netns, self._guard, self._directory, self._tell = netns, guard, directory, tell
        self._wanted: ProtectOptions | None = None
        self._armed: Protection | None = None
        self._again_at = 0.0
        self._busy = BusyCpus()
        """That this process keeps away from."""
        self._chosen = chosen_cpus()
        self._made_before: dict[StepKind, int] = dict.fromkeys(KINDS, 0)
        self._dropped_before: dict[Reason, int] = dict.fromkeys(BY_REASON, 0)
        self.rolled_back = False

    def keep(self, entry: ProtectEntry | None) -> None:
        """This from now on, by the next turn(); None: nothing is protected."""
        self._wanted = None if entry is None else _options(entry)
        self._again_at, self.rolled_back = 0.0, False

    @property
    def device_names(self) -> frozenset[str]:
        """Those that are protected."""
        return frozenset(each.device for each in self._armed.groups) if self._armed else frozenset()

    def with_steps(self, states: Mapping[str, DeviceState]) -> dict[str, DeviceState]:
        """What is known of devices, with how high the protection of each stands."""
        found = dict(states)
        if self._armed is not None:
            for name in self.device_names:
                found[name] = replace(found.get(name, DeviceState()), protection_step=self._armed.step_of(name))
        return found

    @property
    def steps_made(self) -> dict[str, int]:
        """Since the service began, by kind as metrics have it; empty while nothing is to be protected."""
        if self._armed is None:
            return {}
        return {each.replace(" ", "_"): self._made_before[each] + self._armed.made[each] for each in KINDS}

    @property
    def storm_drops(self) -> dict[str, int]:
        """The same of what storm control dropped, by reason."""
        if self._armed is None or self._armed.options.storm_control_per_second is None:
            return {}
        now = self._armed.storm.by_reason
        return {each.replace(" ", "_").lower(): self._dropped_before[each] + now[each] for each in BY_REASON}

    def arm(self) -> None:
        """As it is to be kept, upon what an earlier process of the service has made. Raises NapctlError, OSError."""
        if self._armed is not None and self._armed.options != self._wanted:
            self.let_go()
            self._tell("", "protection ends: the policy wants another one, or none")
        if self._armed is None and self._wanted is not None:
            live = Journal.read(self._directory, live=True)
            armed = Protection(
                self._netns, self._wanted, self._guard, self._directory, self._tell, entry=PROTECTION
            )  # fmt: skip
            armed.adopt(live)
            self._armed = armed

    def turn(self) -> None:
        """Look, and do what is to be done. Errors are told, and tried again."""
        if self.rolled_back:
            return
        try:
            self.arm()
        except (NapctlError, OSError) as error:
            self._tell("", f"protection: {error}; tried again in {AGAIN_SECONDS:.0f}s", "retry")
            self._again_at = time.monotonic() + AGAIN_SECONDS
            return
        if self._armed is not None:
            self.rolled_back = not self._armed.turn()
            if self._busy.see(self._armed, time.monotonic()):
                self._keep_away()

    def _keep_away(self) -> None:
        """This process runs where none of these packets come, if there is such a CPU."""
        busy = self._busy.now
        free = away_from(busy, self._chosen) if busy is not None else frozenset()
        if free:
            self._tell("", f"runs on CPU {cpus_text(free)}, where none of the packets come that may flood")
        else:
            self._run_as_before()
            self._tell("", "may be kept from running by a flood: its packets come to each CPU that it may run on")

    def _run_as_before(self) -> None:
        with suppress(OSError):
            os.sched_setaffinity(0, allowed_cpus() if self._chosen is None else self._chosen)

    def seconds_left(self, now: float) -> float:
        """Until turn() is due."""
        if self.rolled_back or (self._wanted is None and self._armed is None):
            return float("inf")
        if self._armed is None or self._armed.options != self._wanted:
            return max(0.0, self._again_at - now)
        return self._armed.seconds_left(now)

    def look_anew(self) -> None:
        """What was to be tried again, now: the machine has slept meanwhile."""
        self._again_at = 0.0
        if self._armed is not None:
            self._armed.look_anew()

    def sources(self) -> Sequence[Readable]:
        """What can be read when take_notices() is to be called."""
        return self._armed.sources(0.0) if self._armed is not None else ()

    def take_notices(self) -> None:
        """Something has happened to a device."""
        if self._armed is not None:
            self._armed.take_notices()

    def change_guard(self, guard: Guard) -> None:
        """That one is to restore what is made, from now on. Raises what take_over() raises."""
        self._guard = guard
        if self._armed is not None:
            self._armed.change_guard(guard)

    def let_go(self) -> list[Restored]:
        """Put everything back. Raises what restore() raises; it can be repeated then."""
        rows = self._armed.let_go() if self._armed is not None else []
        self._end()
        return rows

    def leave(self, *, kept: bool = False) -> None:
        """What is made stays so with this process as its keeper; without one (not `kept`) it is put back all the same,
        as nobody would end it. Raises what let_go() raises."""
        if self._armed is not None and kept:
            self._armed.leave()
            self._end()
        else:
            self.let_go()

    def _end(self) -> None:
        if self._armed is not None:
            self._made_before = {each: self._made_before[each] + self._armed.made[each] for each in KINDS}
            dropped = self._armed.storm.by_reason
            self._dropped_before = {each: self._dropped_before[each] + dropped[each] for each in BY_REASON}
        self._armed = None
        if self._busy.now != frozenset():
            self._run_as_before()
        self._busy = BusyCpus()


def _options(entry: ProtectEntry) -> ProtectOptions:
    return ProtectOptions(
        devices=entry.devices,
        threshold=entry.threshold / 100,
        storm_control_per_second=entry.storm_control,
    )
