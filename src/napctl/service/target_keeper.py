"""Keeps one target of the policy attached: from one follower to the next, through what administrators do by hand."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from napctl.attach.follow import Stay
from napctl.attach.follow_devices import Readable
from napctl.attach.follow_words import Tell
from napctl.attach.objections import Objections
from napctl.attach.target import parse
from napctl.change.journal import Journal
from napctl.change.recovery import is_adoptable
from napctl.change.same_process import running
from napctl.change.transaction import restore, undisturbed
from napctl.model.backoff import UNATTENDED, Backoff
from napctl.model.change import Guard, InstanceChange, Restored, SteeringChange, ThreadChange, Transaction
from napctl.model.errors import NapctlError
from napctl.model.modes import mode_of, satisfies
from napctl.model.policy import AttachEntry
from napctl.model.settings import BUSY_POLL
from napctl.model.units import duration_text
from napctl.service.policy_keys import attach_options_of

__all__ = ["TargetKeeper", "TargetState"]


TargetState = Literal["attached", "waiting", "detached by hand", "ended"]
"""`ended`: the process of a pid, which does not come back; another one that gets its number was never meant."""


class TargetKeeper:
    """Driven like a follower (attach/follow_many.py); `tell` receives a line for each event."""

    def __init__(self, entry: AttachEntry, guard: Guard, directory: Path, tell: Tell, objections: Objections):
        self.entry, self._guard, self._directory, self._tell = entry, guard, directory, tell
        self._objections = objections
        self._target = parse(entry.target)
        self._stay: Stay | None = None
        self._backoff = Backoff[str](UNATTENDED)
        """Of taking over."""
        self.by_hand = self._ended = False
        """Somebody has detached it: it stays so until it is asked for anew."""

    @property
    def name(self) -> str:
        """As the policy has it."""
        return self.entry.target

    @property
    def attached(self) -> Transaction | None:
        """What is attached by now."""
        return self._stay.attached if self._stay is not None else None

    @property
    def state(self) -> TargetState:
        """For who asks."""
        if self.by_hand:
            return "detached by hand"
        return "ended" if self._ended else "attached" if self.attached is not None else "waiting"

    @property
    def pids(self) -> Collection[int]:
        """Of its processes, as far as they are known."""
        return self._stay.members.pids if self._stay is not None else ()

    @property
    def conflicts(self) -> int:
        """As of a Stay."""
        return self._stay.conflicts if self._stay is not None else 0

    @property
    def napis(self) -> tuple[InstanceChange, ...]:
        """NAPI instances that are attached."""
        changes = self.attached.changes if self.attached is not None else ()
        return tuple(each for each in changes if isinstance(each, InstanceChange))

    def is_of(self, entry: AttachEntry) -> bool:
        """Whether that asks for the same; it may stand at another place."""
        return replace(entry, origin=self.entry.origin) == self.entry

    def begin(self) -> None:
        """Follow it, and take over what is attached of it: by an earlier process of the service, or by somebody who has
        left it without a keeper. What goes wrong is told, and tried again."""
        options = attach_options_of(self.entry)
        stay = Stay(
            self._target, options, self._guard, self._directory, self._tell,
            entry=self.name, objections=self._objections, pauses=UNATTENDED,
        )  # fmt: skip
        self.by_hand = self._ended = False
        try:
            live = Journal.read(self._directory, live=True)
            left = next((each for each in live if self._is_left(each, stay)), None)
            if left is not None and (why := self._why_unwanted(left)):
                with undisturbed(), Journal(self._directory) as journal:
                    restore(journal, left)
                self._tell(f"put back {left.title}: {why}", "restore")
            elif left is not None:
                stay.adopt(left)
        except NapctlError as error:
            pause = self._backoff.failed(self.name, time.monotonic())
            self._tell(f"{error}; tried again in {duration_text(int(pause * 1e9))}", "retry")
        else:
            self._stay = stay
            self._backoff.forget(self.name)

    def _is_left(self, transaction: Transaction, stay: Stay) -> bool:
        if transaction.kind != "attach" or not is_adoptable(transaction):
            return False
        keeper = transaction.keeper
        return stay.members.claims(transaction) if keeper is None else keeper.entry == self.name

    def _why_unwanted(self, attachment: Transaction) -> str:
        """Why it cannot be taken over as it is, in a clause; empty: it can."""
        asked, mode = self.entry.mode or "suspend", mode_of(attachment.changes)
        if not satisfies(mode, asked):
            return f"its mode is {mode}, and the policy wants {asked}"
        threads = [each.after.threaded for each in attachment.changes if isinstance(each, ThreadChange)]
        if asked == "thread" and (BUSY_POLL in threads) != self.entry.spin:
            return f"the policy wants threads that {'spin' if self.entry.spin else 'sleep'}"
        steered = any(isinstance(each, SteeringChange) for each in attachment.changes)
        return "the policy wants no steering any more" if steered and not self.entry.steer else ""

    def try_anew(self) -> None:
        """What was detached by hand, refused, or left to somebody else."""
        if self._stay is not None:
            self._stay.try_anew()
        elif not self._ended:
            self._backoff.forget_all()
            self.begin()

    def turn(self) -> bool:
        """Always true: what ends may come back, and what was detached may be asked for."""
        if (stay := self._stay) is None:
            if not (self.by_hand or self._ended):
                self.begin()
        elif not stay.turn():
            self._stay = None
            stay.let_go()
            if any(map(running, stay.members.known)):
                self.by_hand = True
            elif self._target.kind == "pid":
                self._ended = True
            else:
                self.begin()
        return True

    def seconds_left(self, now: float) -> float:
        """Until turn() is due, of time.monotonic()."""
        if self._stay is not None:
            return self._stay.seconds_left(now)
        if self.by_hand or self._ended:
            return float("inf")
        # Nothing has failed, and it is not followed: look_anew() has forgotten what had, or let_go() could not end.
        return 0.0 if self._backoff.is_due(self.name, now) else self._backoff.next_at(now) - now

    def sources(self, now: float) -> Sequence[Readable]:
        """What can be read when take_notices() is to be called."""
        return self._stay.sources(now) if self._stay is not None else ()

    def take_notices(self) -> None:
        """Something has happened to an attached device."""
        if self._stay is not None:
            self._stay.take_notices()

    def look_anew(self) -> None:
        """The machine has slept: turn() is due now, and looks deeply."""
        self._backoff.forget_all()
        if self._stay is not None:
            self._stay.look_anew()

    def take_restored(self) -> list[Restored]:
        """What became of each setting that was put back since the last time."""
        return self._stay.take_restored() if self._stay is not None else []

    def change_guard(self, guard: Guard) -> None:
        """That one is to restore what is attached, from now on. Raises what take_over() raises."""
        self._guard = guard
        if self._stay is not None:
            self._stay.change_guard(guard)

    def let_go(self) -> list[Restored]:
        """Put everything back. Raises what detach() does; it can be repeated then."""
        rows = self._stay.let_go() if self._stay is not None else []
        self._stay = None
        return rows

    def leave(self, *, kept: bool = False) -> None:
        """What is attached stays so; as of a Stay."""
        if self._stay is not None:
            self._stay.leave(kept=kept)
            self._stay = None
