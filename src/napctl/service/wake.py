"""What is asked of the service by signals, and ends its waits."""

import os
from contextlib import suppress

__all__ = ["Wake"]


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
