"""io_uring instances of our own: how they busy poll, who may set it, and by what they are known."""

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from napctl.kernel import io_uring
from napctl.kernel.io_uring import RingFacts, is_whole, parsed
from napctl.model.settings import RingPolling
from tests.lab.uring_server import OFF, ON

pytestmark = pytest.mark.lab

SINGLE_ISSUER, IOPOLL, SQPOLL, DISABLED = 1 << 12, 1, 1 << 1, 1 << 6
REGISTER_FILES, REGISTER_RESTRICTIONS, ENABLE_RINGS = 2, 11, 12
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def ring(flags: int = 0) -> Iterator[int]:
    params = ctypes.create_string_buffer(struct.pack("=III", 0, 0, flags), 120)
    fd = _libc.syscall(425, 8, params)
    if fd < 0:
        pytest.skip(f"io_uring is not allowed here: {os.strerror(ctypes.get_errno())}")
    try:
        yield fd
    finally:
        os.close(fd)


def test_busy_polling_is_set_read_back_and_switched_off() -> None:
    with ring() as fd:
        assert io_uring.facts(fd) == io_uring.facts(fd, os.getpid()) == RingFacts(OFF, False, frozenset())
        for wanted in (ON, RingPolling(tracking="dynamic", busy_poll_usecs=7, prefer_busy_poll=False), OFF, OFF):
            io_uring.set_polling(fd, wanted)
            assert io_uring.facts(fd).polling == wanted


def test_asking_whether_it_can_be_set_changes_nothing() -> None:
    with ring() as fd:
        for polling in (OFF, ON, RingPolling(tracking="dynamic", busy_poll_usecs=7, prefer_busy_poll=False)):
            io_uring.set_polling(fd, polling)
            assert io_uring.refusal(fd) == (0, polling)
            assert io_uring.facts(fd).polling == polling


@pytest.mark.parametrize(("flags", "error"), [(SINGLE_ISSUER, errno.EEXIST), (IOPOLL, errno.EINVAL)])
def test_a_ring_that_refuses_says_so_before_and_when_it_is_set(flags: int, error: int) -> None:
    found: list[int] = []

    def as_another_thread(fd: int) -> None:
        found.append(io_uring.refusal(fd)[0])
        try:
            io_uring.set_polling(fd, ON)
        except OSError as refused:
            found.append(refused.errno or 0)

    with ring(flags) as fd:
        thread = threading.Thread(target=as_another_thread, args=(fd,))
        thread.start()
        thread.join()
        assert found == [error, error]
        assert io_uring.facts(fd).polling == OFF


@pytest.mark.parametrize(("allowed", "error"), [([27, 28], 0), ([27], errno.EACCES)], ids=["can", "cannot"])
def test_a_restricted_ring_is_taken_only_if_it_can_be_switched_off_again(allowed: list[int], error: int) -> None:
    with ring(DISABLED) as fd:
        each = b"".join(struct.pack("=HBB12x", 0, operation, 0) for operation in [ENABLE_RINGS, *allowed])
        assert not _libc.syscall(427, fd, REGISTER_RESTRICTIONS, each, len(allowed) + 1)
        assert not _libc.syscall(427, fd, ENABLE_RINGS, None, 0)
        assert io_uring.refusal(fd)[0] == error
        assert io_uring.facts(fd).polling == OFF


def test_a_ring_that_has_something_to_tell_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is written its server waits for it."""
    whole: list[bool] = []
    """Of each reading that tells anything."""
    read = Path.read_text

    def counted(path: Path, *arguments: Any, **more: Any) -> str:
        text = read(path, *arguments, **more)
        whole.extend([is_whole(text)] if parsed(text) is not None else [])
        return text

    monkeypatch.setattr(Path, "read_text", counted)
    with ring() as fd, socket.socket() as registered:
        io_uring.facts(fd)
        assert whole == [False, False], "it has nothing that shows it"
        whole.clear()
        assert not _libc.syscall(427, fd, REGISTER_FILES, struct.pack("=i", registered.fileno()), 1)
        assert io_uring.facts(fd) == RingFacts(OFF, False, frozenset({os.fstat(registered.fileno()).st_ino}))
        assert whole == [True]
    whole.clear()
    with ring(SQPOLL) as fd:
        assert io_uring.facts(fd).submission_thread
        assert whole == [True]


def test_each_ring_has_an_inode_number_of_its_own() -> None:
    with ring() as one, ring() as other:
        assert os.fstat(one).st_ino != os.fstat(other).st_ino
        copy = os.dup(one)
        assert os.fstat(copy).st_ino == os.fstat(one).st_ino
        os.close(copy)
