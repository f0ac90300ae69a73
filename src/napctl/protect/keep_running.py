"""Protection runs while packets have the CPU that it was on: on another one, or before all that is ordinary."""

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from napctl.attach.follow_devices import Readable
from napctl.attach.follow_words import TellOf
from napctl.kernel.own_cpu import BeforeOthers, away_from
from napctl.model.change import Restored
from napctl.model.cpus import cpus_text
from napctl.protect.protection import Protection

__all__ = ["BusyCpus", "KeptRunning"]


SETTLED_SECONDS = 1.0
"""For so long CPUs have to be others."""
APART_SECONDS = 60.0
"""Between two words that it was an ordinary process for a while."""


class BusyCpus:
    """CPUs to which packets come while no step is made: steps let threads run anywhere. Others count when they have
    been the same for a while, as right after steps nobody has looked yet."""

    def __init__(self) -> None:
        self.now: frozenset[int] | None = frozenset()
        """None: nobody knows which; empty: nothing is protected."""
        self._next: frozenset[int] | None = frozenset()
        self._since = 0.0

    def see(self, protection: Protection, at: float) -> bool:
        """One more look, at that time.monotonic(): whether they are others from now on."""
        busy = protection.busy_cpus
        if protection.is_up or busy in (frozenset(), self.now):
            self._next = self.now
            return False
        if busy != self._next:
            self._next, self._since = busy, at
        if self.now != frozenset() and at - self._since < SETTLED_SECONDS:
            return False
        self.now = busy
        return True


class KeptRunning:
    """Drives a protection, and keeps this process running meanwhile, also when packets come to other CPUs by and by. A
    context manager; tells how."""

    def __init__(
        self,
        protection: Protection,
        tell: TellOf,
        away: Callable[[Collection[int]], frozenset[int]] = away_from,
        before: Callable[[], BeforeOthers] = BeforeOthers,
    ):
        """`away`, `before`: how, as in kernel/own_cpu.py."""
        self._protection, self._tell, self._away, self._make_before = protection, tell, away, before
        self._cpus = os.sched_getaffinity(0)
        self._busy = BusyCpus()
        self._before: BeforeOthers | None = None
        self._said_at = float("-inf")

    def __enter__(self) -> "KeptRunning":
        self._busy.see(self._protection, time.monotonic())
        self._choose()
        return self

    def __exit__(self, *exc: object) -> None:
        self._as_others()

    def turn(self) -> bool:
        """As of the protection."""
        goes_on = self._protection.turn()
        if self._busy.see(self._protection, time.monotonic()):
            self._choose()
        elif self._before is not None and self._before.allowed and self._before.is_ordinary:
            self._be_first_again(self._before)
        return goes_on

    def _choose(self) -> None:
        """A CPU where none of the packets come; without one, before all others."""
        free = self._away(self._busy.now) if self._busy.now is not None else frozenset()
        if free:
            self._as_others()
            self._tell("", f"napctl runs on CPU {cpus_text(free)}, where none of these packets come")
            return
        where = "any CPU" if self._busy.now is None else "each CPU that it may run on"
        with suppress(OSError):
            os.sched_setaffinity(0, self._cpus)
        if self._before is None:
            self._before = self._make_before()
        if self._before.allowed:
            self._tell("", f"napctl runs before all ordinary processes (SCHED_RR), as packets come to {where}")
        else:
            why = "real-time scheduling needs CAP_SYS_NICE"
            self._tell("", f"napctl may be kept from running: packets come to {where}, and {why}")

    def _be_first_again(self, before: BeforeOthers) -> None:
        now = time.monotonic()
        if before.again() and now - self._said_at >= APART_SECONDS:
            self._said_at = now
            self._tell("", "napctl ran too long without a sleep, and so as an ordinary process; now before all again")

    def _as_others(self) -> None:
        if self._before is not None:
            self._before.__exit__(None, None, None)
            self._before = None

    # As the protection does.

    def seconds_left(self, now: float) -> float:
        """Until turn() is due."""
        return self._protection.seconds_left(now)

    def sources(self, now: float) -> Sequence[Readable]:
        """What can be read when take_notices() is to be called."""
        return self._protection.sources(now)

    def take_notices(self) -> None:
        """Something has happened to a device."""
        self._protection.take_notices()

    def look_anew(self) -> None:
        """At everything, by the next turn()."""
        self._protection.look_anew()

    def take_restored(self) -> list[Restored]:
        """What became of each setting that was put back since the last time."""
        return self._protection.take_restored()

    def let_go(self) -> list[Restored]:
        """Put everything back."""
        return self._protection.let_go()
