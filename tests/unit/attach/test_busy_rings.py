"""Rings on which their server works all the time: looked at for a while together, and never waited for."""

import errno
import os
import time
from contextlib import nullcontext
from typing import Any

import pytest

from napctl.attach import inspect_process as module
from napctl.attach.inspect_process import Look, rings_of
from napctl.kernel import io_uring, open_files, processes
from napctl.kernel.io_uring import RingFacts
from napctl.kernel.open_files import OpenFiles
from napctl.model.settings import DYNAMIC, INACTIVE, RingPolling
from tests.unit.attach.targets import process

OFF = RingPolling(tracking=INACTIVE, busy_poll_usecs=0, prefer_busy_poll=False)
ON = RingPolling(tracking=DYNAMIC, busy_poll_usecs=50, prefer_busy_poll=True)
BUSY = range(10, 20)


def test_all_of_a_process_together_take_no_longer_than_one_and_a_busy_one_is_not_asked_whether_it_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    asked: list[int] = []

    def facts(fd: int, *, patience_seconds: float) -> RingFacts:
        if fd in BUSY:
            now[0] += patience_seconds
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return RingFacts(OFF, submission_thread=False, sockets=frozenset())

    def refusal(fd: int) -> tuple[int, RingPolling | None]:
        asked.append(fd)
        return 0, ON

    def copy(_handle: Any, fd: int, _inode: int) -> Any:
        return nullcontext(fd)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(io_uring, "facts", facts)
    monkeypatch.setattr(io_uring, "refusal", refusal)
    monkeypatch.setattr(module, "copy_of_ring", copy)
    monkeypatch.setattr(open_files, "inode_of", lambda _pid, fd: fd)
    monkeypatch.setattr(processes.Handle, "of", lambda _process: nullcontext())
    look = Look(process(), 1, OpenFiles(rings=[*BUSY, 30]), [], set())
    assert [each.polling for each in rings_of(look)] == [None] * len(BUSY) + [ON], "by its own answer, of one moment"
    assert asked == [30]
    assert now[0] - 100 <= io_uring.PATIENCE_SECONDS
