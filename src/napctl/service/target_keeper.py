"""Keeps one target of the policy attached: from one follower to the next, through what administrators do by hand."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from napctl.attach.follow import Stay
from napctl.attach.follow_devices import Readable
from napctl.attach.target import parse
from napctl.change.journal import Journal
from napctl.change.recovery import is_adoptable, running
from napctl.change.transaction import restore, undisturbed
from napctl.model.change import Guard, NapiChange, Restored, SteeringChange, Transaction
from napctl.model.errors import BadInput, NapctlError
from napctl.model.policy import AttachEntry
from napctl.service.policy_keys import attach_options_of

__all__ = ["TargetKeeper", "TargetState"]


ADOPT_AGAIN_SECONDS = 1.0
TargetState = Literal["attached", "waiting", "detached by hand"]


class TargetKeeper:
    """Driven like a follower (attach/follow_many.py); `tell` receives a line for each event."""

    def __init__(self, entry: AttachEntry, guard: Guard, directory: Path, tell: Callable[[str], None]):
        self.entry, self._guard, self._directory, self._tell = entry, guard, directory, tell
        self._stay: Stay | None = None
        self.by_hand = False
        """Somebody has detached it: it stays so until it is asked for anew."""
        self._to_adopt: Transaction | None = None
        self._adopt_at = 0.0
        """When that is tried, of time.monotonic()."""

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
        return "detached by hand" if self.by_hand else "attached" if self.attached is not None else "waiting"

    @property
    def pids(self) -> Collection[int]:
        """Of its processes, as far as they are known."""
        return {each.pid for each in self._stay.members.known} if self._stay is not None else ()

    @property
    def napis(self) -> tuple[NapiChange, ...]:
        """NAPI instances that are attached."""
        changes = self.attached.changes if self.attached is not None else ()
        return tuple(each for each in changes if isinstance(each, NapiChange))

    def is_of(self, entry: AttachEntry) -> bool:
        """Whether that asks for the same; it may stand at another place."""
        return replace(entry, origin=self.entry.origin) == self.entry

    def begin(self, live: Iterable[Transaction] = ()) -> None:
        """Follow it from the next turn() on, which first takes over what is attached of it and nobody else keeps."""
        options = attach_options_of(self.entry)
        self._stay = Stay(parse(self.name), options, self._guard, self._directory, self._tell, entry=self.name)
        self.by_hand = False
        self._to_adopt = next((each for each in live if is_adoptable(each) and self._may_adopt(self._stay, each)), None)

    def _may_adopt(self, stay: Stay, attachment: Transaction) -> bool:
        """What the service has attached before; and what nobody keeps any more, as after `on-stop = "keep"`
        or since a plain `napctl attach`."""
        if attachment.kind != "attach":
            return False
        keeper = attachment.keeper
        return stay.members.claims(attachment) if keeper is None else keeper.entry == self.name

    def adopt(self) -> bool:
        """Take over what there is, if there is; whether that is done. While another napctl is at work, it is not."""
        if self._to_adopt is not None and self._stay is not None:
            try:
                if self._is_unwanted(self._to_adopt):
                    with undisturbed(), Journal(self._directory) as journal:
                        restore(journal, self._to_adopt)
                    self._tell("put back: the policy wants no steering any more; it is attached anew")
                else:
                    self._stay.adopt(self._to_adopt)
            except BadInput as error:  # it is not in force any more, or somebody else's by now
                self._tell(str(error))
            except NapctlError as error:
                self._adopt_at = time.monotonic() + ADOPT_AGAIN_SECONDS
                self._tell(f"to be taken over as soon as it can: {error}")
                return False
        self._to_adopt = None
        return True

    def _is_unwanted(self, attachment: Transaction) -> bool:
        return not self.entry.steer and any(isinstance(each, SteeringChange) for each in attachment.changes)

    def turn(self) -> bool:
        """Always true: what ends may come back, and what was detached may be asked for."""
        if not self.adopt():
            return True
        if (stay := self._stay) is None:
            return True
        before = stay.attached
        if not stay.turn():
            if before is not None and any(map(running, stay.members.known)) and not self._is_recorded(before):
                self.by_hand = True
            stay.let_go()
            self._stay = None
            if not self.by_hand and not self._is_over:
                self.begin()
        return True

    @property
    def _is_over(self) -> bool:
        """A pid that has ended does not come back."""
        return parse(self.name).kind == "pid"

    def _is_recorded(self, transaction: Transaction) -> bool:
        with suppress(NapctlError):
            return any(each.number == transaction.number for each in Journal.read(self._directory, live=True))
        return True

    def seconds_left(self, now: float) -> float:
        """Until turn() is due, of time.monotonic()."""
        if self._to_adopt is not None:
            return max(0.0, self._adopt_at - now)
        return self._stay.seconds_left(now) if self._stay is not None else float("inf")

    def sources(self, now: float) -> Sequence[Readable]:
        """What can be read when take_notices() is to be called."""
        return self._stay.sources(now) if self._stay is not None else ()

    def take_notices(self) -> None:
        """Something has happened to an attached device."""
        if self._stay is not None:
            self._stay.take_notices()

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
