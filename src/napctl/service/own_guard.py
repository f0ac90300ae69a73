"""Who restores what the service has set, if it is killed and does not come back: the guard's unit, or a fork of it."""

import os
import time
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from napctl.change.guard import dismiss, is_named, post_guard
from napctl.change.guard_lock import is_on_watch, service_guard
from napctl.change.journal import Journal
from napctl.change.same_process import running
from napctl.model.change import Guard
from napctl.model.errors import NapctlError

__all__ = ["OwnGuard"]


LOOK_SECONDS = 10.0
"""Between two looks whether it still watches."""
UNIT_SECONDS = 5.0
"""So long a service that a manager has started waits for the guard that this starts as well."""


class OwnGuard:
    """A context manager: at its end a guard that is not needed any more goes home. Raises NapctlError."""

    def __init__(self, directory: Path, wait_ns: int):
        self._directory = directory
        self._due_at = time.monotonic() + LOOK_SECONDS
        if "NOTIFY_SOCKET" in os.environ:
            deadline = time.monotonic() + UNIT_SECONDS
            while not is_on_watch(directory) and time.monotonic() < deadline:
                time.sleep(0.05)
        self.now = self._found(wait_ns)

    def __enter__(self) -> "OwnGuard":
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(NapctlError):
            live = Journal.read(self._directory, live=True)
            if self.now.pid and not any(is_named(self.now, each) for each in live):
                dismiss(self.now)

    def seconds_left(self, now: float) -> float:
        """Until is_another() is due, of time.monotonic()."""
        return max(0.0, self._due_at - now)

    def is_another(self, wait_ns: int) -> bool:
        """Whether it is another one `now`, or waits for another time, so that all transactions are to name that.

        Raises NapctlError where none can be had.
        """
        self._due_at = time.monotonic() + LOOK_SECONDS
        before = self.now
        lives = before.pid and running(before) and not is_on_watch(self._directory)
        self.now = replace(before, wait_ns=wait_ns) if lives else self._found(wait_ns)
        return self.now != before

    def _found(self, wait_ns: int) -> Guard:
        if is_on_watch(self._directory):
            return service_guard(wait_ns)
        return post_guard(None, self._directory, wait_ns)
