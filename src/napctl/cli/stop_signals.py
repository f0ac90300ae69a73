"""Ctrl-C as a request to finish, for commands that go on until they are told."""

import os
import signal
import time
from contextlib import suppress
from types import FrameType

__all__ = ["Stop"]


class Stop:
    """Ctrl-C, and the end of the terminal, as a request: what is at hand still ends."""

    def __init__(self) -> None:
        self.asked = False
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)

    def is_asked(self) -> bool:
        """Whether the request has come."""
        return self.asked

    def fileno(self) -> int:
        """For select(): it can be read as soon as the request has come."""
        return self._read

    def sleep_until(self, due: float) -> None:
        """Sleep until that time.monotonic(), but not past the request."""
        while not self.asked and (left := due - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        with suppress(BlockingIOError):
            os.write(self._write, b"!")
