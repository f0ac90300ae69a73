"""Output that nobody reads holds up nobody who follows: `attach --stay`, `run`, `protect`, the service and its guard.

A pipe is full once its reader has stopped, a terminal after Ctrl-S, the socket to journald when that hangs: a write
would wait for as long as that lasts, and settings would not be mended meanwhile. What cannot be written at once is
queued here, up to a bound; what comes beyond that is dropped and counted, and the number told where lines are missing.
"""

import io
import os
import select
import socket
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from napctl.cli.os_errors import OutputFailed, text_stream

__all__ = ["OutputQueue", "missing_text", "never_waiting"]


MOST_QUEUED_BYTES = 256 * 1024
"""Of each stream: some thousand lines."""
LAST_SECONDS = 1.0
"""At the end, for what is still queued."""
PIPE_BUF = 4096
"""So much a pipe takes at once, if it takes anything (pipe(7))."""


@contextmanager
def never_waiting(tell_missing: Callable[[int], None]) -> Iterator["OutputQueue"]:
    """To the end of the block nobody waits until standard output or standard error can be written.

    `tell_missing` is called when somebody reads again, with the number of lines that were dropped before.
    """
    before = sys.stdout, sys.stderr
    queue = OutputQueue(tell_missing)
    try:
        sys.stdout, sys.stderr = (text_stream(queue.stream(number), before[number - 1]) for number in (1, 2))
        yield queue
    finally:
        queue.close()
        sys.stdout, sys.stderr = before


def missing_text(lines: int) -> str:
    """In the place of so many lines."""
    return f"{lines} line{'s are' if lines != 1 else ' is'} missing here: nobody read the output"


class OutputQueue:
    """Can be read, as poll(2) means it, when there may be something to catch_up() with."""

    def __init__(self, tell_missing: Callable[[int], None], most_bytes: int = MOST_QUEUED_BYTES):
        self._tell_missing, self._most_bytes = tell_missing, most_bytes
        self._writable = select.epoll()
        self._streams: list[_Stream] = []

    def stream(self, number: int) -> "_Stream":
        """What is written to it goes to that descriptor."""
        self._streams.append(_Stream(number, self._writable, self._tell_missing, self._most_bytes))
        return self._streams[-1]

    def fileno(self) -> int:
        """Of an epoll instance that watches what could not be written."""
        return self._writable.fileno()

    def catch_up(self) -> None:
        """Write what can be written by now. Raises OutputFailed: nobody will ever read it; the other one is written."""
        self._writable.poll(0)  # each change is told once
        with ExitStack() as stack:
            for each in self._streams:
                stack.callback(each.catch_up)

    def catching_up(self, asked: Callable[[], bool]) -> Callable[[], bool]:
        """Asks that, and catches up before: for a loop that asks whenever it is woken."""

        def caught_up_and_asked() -> bool:
            self.catch_up()
            return asked()

        return caught_up_and_asked

    def close(self) -> None:
        """What is still queued gets a moment to be written."""
        end = time.monotonic() + LAST_SECONDS
        with suppress(OutputFailed):
            self.catch_up()
        while any(each.is_behind for each in self._streams) and (left := end - time.monotonic()) > 0:
            self._writable.poll(left)
            with suppress(OutputFailed):
                self.catch_up()
        for each in self._streams:
            each.close()
        self._writable.close()


class _Stream(io.RawIOBase):
    """What one write brings is queued as a whole or not at all."""

    def __init__(self, number: int, writable: select.epoll, tell_missing: Callable[[int], None], most_bytes: int):
        self._number, self._writable = number, writable
        self._tell_missing, self._most_bytes = tell_missing, most_bytes
        self._open = ExitStack()
        self._fd, self._write_some = _writer(number, self._open)
        self._queue: deque[memoryview] = deque()
        self._queued_bytes = 0
        self._missing = 0
        """Lines that were dropped behind what is queued."""
        self._is_watched = False

    @property
    def is_behind(self) -> bool:
        """Whether anything is not written yet."""
        return bool(self._queue or self._missing)

    def catch_up(self) -> None:
        """Write what can be written. Raises OutputFailed."""
        try:
            while self._queue:
                written = self._write_some(self._queue[0])
                self._queued_bytes -= written
                self._queue[0] = self._queue[0][written:]
                if not self._queue[0]:
                    self._queue.popleft()
        except BlockingIOError:
            self._watch(on=True)
            return
        except OSError as error:
            self._forget()
            raise OutputFailed(error.errno, error.strerror) from None
        self._watch(on=False)
        if self._missing:
            missing, self._missing = self._missing, 0
            self._tell_missing(missing)

    def _watch(self, *, on: bool) -> None:
        """Only while anything is queued: else whoever reads would wake us."""
        if on and not self._is_watched:
            self._writable.register(self._fd, select.EPOLLOUT | select.EPOLLET)
        elif self._is_watched and not on:
            self._writable.unregister(self._fd)
        self._is_watched = on

    def _forget(self) -> None:
        self._queue.clear()
        self._queued_bytes = self._missing = 0
        self._watch(on=False)

    # As of any stream.

    def write(self, data: Any) -> int:
        """Now, or later, or never. Raises OutputFailed, also for what was queued before."""
        lines = bytes(data)
        self.catch_up()
        if self._missing or (self._queue and self._queued_bytes + len(lines) > self._most_bytes):
            self._missing += lines.count(b"\n")
        else:
            self._queue.append(memoryview(lines))
            self._queued_bytes += len(lines)
            self.catch_up()
        return len(lines)

    def close(self) -> None:
        """What it stands for stays open."""
        if not self.closed:
            self._forget()
            self._open.close()
        super().close()

    def fileno(self) -> int:
        """What it stands for."""
        return self._number

    def isatty(self) -> bool:
        """Whether that is a terminal."""
        return os.isatty(self._number)

    def writable(self) -> bool:
        """Always."""
        return True


def _writer(number: int, open_: ExitStack) -> tuple[int, Callable[[memoryview], int]]:
    """What writes to it, or raises BlockingIOError; and the descriptor that can be waited for.

    O_NONBLOCK is of the open file, which other programs may have too, so that it is set on one of our own.
    """
    mode = os.fstat(number).st_mode
    if stat.S_ISSOCK(mode):
        sock = socket.socket(fileno=number)
        open_.callback(sock.detach)
        return number, lambda data: sock.send(data, socket.MSG_DONTWAIT)
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return number, partial(os.write, number)
    try:
        own = _opened_again(number)
    except OSError:  # without /proc; or nobody reads any more, which writing will tell
        return number, partial(_write_if_writable, number)
    open_.callback(os.close, own)
    return own, partial(os.write, own)


def _opened_again(number: int) -> int:
    return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _write_if_writable(number: int, data: memoryview) -> int:
    """Who else writes there may be quicker; then it waits."""
    waiting = select.poll()
    waiting.register(number, select.POLLOUT)
    if not waiting.poll(0):
        raise BlockingIOError
    return os.write(number, data[:PIPE_BUF])
