"""What there is of attached settings, and what becomes of them: by resets of their devices, and by other programs."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from napctl.attach.follow_conflicts import Conflicts
from napctl.attach.follow_devices import Devices, PlacedNotice, Readable
from napctl.attach.follow_step import Present, Step, resets_of
from napctl.attach.follow_words import Words, in_words
from napctl.kernel.monitor import What
from napctl.model.change import InstanceChange, NapiChange, Transaction
from napctl.model.errors import NapctlError

__all__ = ["FollowedSettings"]


class FollowedSettings:
    """Of one target, from one attachment to the next: end() stands after each."""

    def __init__(self, conflicts: Conflicts, words: Words):
        self.conflicts, self._words = conflicts, words
        self._devices = Devices()
        self._followed: Transaction | None = None
        """Whose devices they are."""
        self._told = True
        """Whether it is said what happens to them."""
        self._resets: dict[tuple[int, int], NapiChange] = {}
        """By device: the newest attached NAPI instance that a reset has taken away."""

    def follow(self, transaction: Transaction) -> None:
        """Its devices, and no others."""
        if transaction is self._followed:
            return
        self._followed, self._told = None, True
        napis = (each for each in transaction.changes if isinstance(each, InstanceChange))
        self._heed(self._devices.follow({(each.netns, each.ifindex) for each in napis}))
        self._followed = transaction

    def await_reset(self, devices: Collection[tuple[int, int]]) -> None:
        """Of one of these, while nothing is attached: that it happens is heard, and not told."""
        self._followed, self._told = None, False
        with suppress(NapctlError, OSError):
            self._devices.follow(devices)

    def present(self, transaction: Transaction) -> Present:
        """What the kernel has by now of the devices of that."""
        self.follow(transaction)
        return replace(self._devices.present(), resets=self._resets) if self._resets else self._devices.present()

    @property
    def sources(self) -> tuple[Readable, ...]:
        """What can be read when something may have happened to a device."""
        return self._devices.sources

    def read_notices(self) -> frozenset[What]:
        """What has happened to devices, which is told; nothing if that cannot be read."""
        try:
            notices = self._devices.notices()
        except (NapctlError, OSError) as error:
            self._words.say(in_words(error))
            self._followed = None
            self._devices.follow(())  # to be opened anew by the next check
            self.conflicts.heed_nobody_knows_what()
            return frozenset()
        self._heed(notices)
        return frozenset(notice.what for _, notice in notices)

    def _heed(self, notices: Collection[PlacedNotice]) -> None:
        if self._told:
            self._words.tell_notices(notice for _, notice in notices)
        self.conflicts.heed(notices)

    def made(self, step: Step) -> None:
        """It is what is attached by now."""
        self._resets |= resets_of(step.forget)
        self.conflicts.made(step.more)

    def end(self) -> None:
        """Nothing is attached any more."""
        self._resets.clear()
        self.conflicts.end()
        self._followed = None
        self._devices.follow(())
