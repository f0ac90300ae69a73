"""What wakes the service: what is asked of it by signals, and a log that can be written again."""

import os
from contextlib import suppress
from typing import Protocol

__all__ = ["Log", "Wake"]


class Wake:
    """What ends a wait from outside: signals set these, and write to the pipe."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.stop = self.reload = self.renew = False

    def fileno(self) -> int:
        """Can be read once something was asked for."""
        return self._read

    def up(self) -> None:
        """From a signal's handler."""
        with suppress(BlockingIOError):
            os.write(self._write, b"!")

    def clear(self) -> None:
        """What was written has been noticed."""
        with suppress(BlockingIOError):
            os.read(self._read, 1000)


class Log(Protocol):
    """Keeps what cannot be written for now."""

    def fileno(self) -> int:
        """Can be read once that can be written."""

    def catch_up(self) -> None:
        """Write it. Raises OSError."""
