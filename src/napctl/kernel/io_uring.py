"""NAPI busy polling of an io_uring instance: IORING_REGISTER_NAPI of io_uring_register(2) (Linux 6.9), and its fdinfo.

Whoever holds a descriptor of the ring, a copy too, may register; its state stands in /proc/PID/fdinfo/FD.
"""

import ctypes
import errno
import os
import re
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from napctl.kernel.processes import PROC
from napctl.model.settings import DYNAMIC, INACTIVE, STATIC, RingPolling

__all__ = [
    "FORGETTING",
    "PATIENCE_SECONDS",
    "RingFacts",
    "facts",
    "is_whole",
    "joined",
    "parsed",
    "refusal",
    "set_polling",
    "why_refused",
]


IO_URING_REGISTER = 427  # the same number on every architecture
REGISTER_NAPI, UNREGISTER_NAPI = 27, 28
NAPI = struct.Struct("=IBB2xII")
"""struct io_uring_napi: busy_poll_to, prefer_busy_poll, opcode, padding, op_param, resv."""
REGISTER, NO_OPERATION = 0, 0xFF
"""Of its opcode: enum io_uring_napi_op, which has nothing like the second."""
TRACKING, TRACKING_INACTIVE = {DYNAMIC: 0, STATIC: 1}, 255
"""enum io_uring_napi_tracking_strategy (Linux 6.13, commit 6bf90bd8c58a)."""
UNTOUCHED = 0xFFFFFFFF
PATIENCE_SECONDS, BETWEEN_SECONDS = 1.0, 0.0002
"""Nothing is told while somebody works on the ring, as its server does for moments: so long it is asked again."""
FORGETTING = RingPolling(tracking=STATIC, busy_poll_usecs=0, prefer_busy_poll=False)
"""What a ring has for a moment when its polling is switched off."""
LINE = re.compile(r"^(NAPI|napi tracking|napi_busy_poll_dt|napi_prefer_busy_poll|SqMask|SqThread):\t(.*)$", re.M)
REFUSALS = {
    errno.EEXIST: "only the thread that made it may set that (IORING_SETUP_SINGLE_ISSUER)",
    errno.EACCES: "its program has restricted what may be set of it (IORING_REGISTER_RESTRICTIONS)",
    errno.EINVAL: "it is made for block devices (IORING_SETUP_IOPOLL), or this kernel is older than Linux 6.13",
    errno.EOPNOTSUPP: "this kernel is built without busy polling (CONFIG_NET_RX_BUSY_POLL)",
}
UNDER_LOCK = re.compile(r"^\t\d|^ *\d+: |^Personalities:|^  op=", re.M)
"""Of what follows "SqThread:": the thread's number, files and buffers, users, polls that wait."""
REGISTERED_SOCKET = re.compile(r"^ *\d+: socket:\[(\d+)\]$", re.M)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class RingFacts:
    """What the kernel tells of one ring."""

    polling: RingPolling | None
    """None: this kernel does not tell it (before Linux 6.12)."""
    submission_thread: bool
    """Whether a kernel thread submits for it (IORING_SETUP_SQPOLL), which then busy polls instead of who waits."""
    sockets: frozenset[int]
    """Inode numbers of those that are registered with it; the process need not have descriptors of them."""


def facts(fd: int, pid: int | None = None, patience_seconds: float = PATIENCE_SECONDS) -> RingFacts:
    """Of a descriptor of ours, or of another process. Raises OSError: EBUSY if somebody works on it all the time; and
    as open_files.watched()."""
    path = PROC / ("self" if pid is None else str(pid)) / "fdinfo" / str(fd)
    until = time.monotonic() + patience_seconds
    readings: list[RingFacts] = []
    while True:
        while (found := parsed(text := path.read_text(errors="replace"))) is None:
            _wait_unless_late(until)
        readings.append(found)
        if (told := found if is_whole(text) else joined(readings)) is not None:
            return told
        if len(readings) > 2:
            _wait_unless_late(until)
        time.sleep(BETWEEN_SECONDS)


def _wait_unless_late(until: float) -> None:
    """Wait for the next reading. Raises OSError if it is too late for one."""
    if time.monotonic() > until:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
    time.sleep(BETWEEN_SECONDS)


def joined(readings: Sequence[RingFacts]) -> RingFacts | None:
    """What several readings in a row, none of which is known to be whole, tell together; None: the last two do not
    agree."""
    if len(readings) < 2 or readings[-1].polling != readings[-2].polling:
        return None
    return RingFacts(
        polling=readings[-1].polling,
        submission_thread=any(each.submission_thread for each in readings),
        sockets=frozenset().union(*(each.sockets for each in readings)),
    )


def is_whole(text: str) -> bool:
    """Whether its writer had the ring's lock, and left nothing out: something that is written under it alone is there.

    Kernels without commit d871198ee431 (Linux 6.15, 6.14.8) leave out files, thread and polls where somebody else has
    it. (Before "io_uring/poll: get rid of unlocked cancel hash", Linux 6.13, polls say nothing; no ring of these can be
    set from outside.) Its server waits for who writes with it, longest where there is much to tell, and that shows:
    what is to be read once more is soon written, or without the lock.
    """
    return UNDER_LOCK.search(text.partition("\nCQEs:")[2].partition("\nSqThread:")[2]) is not None


def parsed(text: str) -> RingFacts | None:
    """From its fdinfo (io_uring_show_fdinfo() in io_uring/fdinfo.c); None if the ring was locked just then."""
    lines = dict(LINE.findall(text))
    if "SqMask" not in lines:
        return None
    return RingFacts(
        polling=_polling(lines),
        submission_thread=int(lines.get("SqThread", -1)) >= 0,
        sockets=frozenset(map(int, REGISTERED_SOCKET.findall(text))),
    )


def _polling(lines: dict[str, str]) -> RingPolling | None:
    if "NAPI" not in lines:
        return None
    if lines["NAPI"] == "disabled":
        return RingPolling(tracking=INACTIVE, busy_poll_usecs=0, prefer_busy_poll=False)
    return RingPolling(
        tracking=lines.get("napi tracking", DYNAMIC if lines["NAPI"] == "enabled" else lines["NAPI"]),
        busy_poll_usecs=int(lines.get("napi_busy_poll_dt", 0)) // 1000,
        prefer_busy_poll=lines.get("napi_prefer_busy_poll") == "true",
    )


def set_polling(ring_fd: int, wanted: RingPolling) -> None:
    """Register it, or unregister; then it learns anew which NAPI instances to poll. Raises OSError: as refusal().

    Unregistering alone leaves those that it has learned, which each wait then polls once, for a minute
    (io_unregister_napi() in io_uring/napi.c). Registering forgets them, and with static tracking nothing is learned.
    """
    if wanted.tracking != INACTIVE:
        _register(ring_fd, REGISTER_NAPI, _packed(wanted))
        return
    _register(ring_fd, REGISTER_NAPI, _packed(FORGETTING))
    _register(ring_fd, UNREGISTER_NAPI, bytes(NAPI.size))


def refusal(ring_fd: int) -> tuple[int, RingPolling | None]:
    """With which error it answers whoever would register from outside, or unregister (why_refused()); 0: it takes both.
    And how it polls, all of it at one moment; None: it refuses before it tells.

    Changes nothing. It waits as long as somebody works on the ring: to be called after facts().

    Asked with an operation that does not exist. All checks come before it is looked at, and the former values are
    written back by then (io_register_napi() in io_uring/napi.c). A restricted ring may let itself be registered, and
    never unregistered: that is asked with no argument, which is counted after that check (__io_uring_register()).
    """
    try:
        _register(ring_fd, REGISTER_NAPI, buffer := bytearray(NAPI.pack(UNTOUCHED, 0, NO_OPERATION, 0, 0)))
    except OSError as error:
        number = error.errno or errno.EINVAL
        told = NAPI.unpack(buffer)
        if number == errno.EINVAL and told[0] != UNTOUCHED:
            return _refuses_unregistering(ring_fd), _former(*told)
        return number, None
    return 0, None


def _former(busy_poll_usecs: int, prefer_busy_poll: int, _operation: int, tracking: int, *_: int) -> RingPolling:
    if tracking == TRACKING_INACTIVE:
        return RingPolling(tracking=INACTIVE, busy_poll_usecs=0, prefer_busy_poll=False)
    known = {number: name for name, number in TRACKING.items()}
    return RingPolling(
        tracking=known.get(tracking, f"unknown mode ({tracking})"),
        busy_poll_usecs=busy_poll_usecs,
        prefer_busy_poll=bool(prefer_busy_poll),
    )


def _refuses_unregistering(ring_fd: int) -> int:
    try:
        _register(ring_fd, UNREGISTER_NAPI, bytes(NAPI.size), count=0)
    except OSError as error:
        return error.errno if error.errno and error.errno != errno.EINVAL else 0
    return 0


def why_refused(number: int) -> str:
    """An error of set_polling(), or of refusal(), in words: __io_uring_register() in io_uring/register.c."""
    return REFUSALS.get(number, os.strerror(number))


def _packed(wanted: RingPolling) -> bytes:
    return NAPI.pack(wanted.busy_poll_usecs, wanted.prefer_busy_poll, REGISTER, TRACKING[wanted.tracking], 0)


def _register(ring_fd: int, operation: int, argument: bytes | bytearray, *, count: int = 1) -> None:
    """The kernel writes the former values into a bytearray."""
    buffer = ctypes.create_string_buffer(bytes(argument), len(argument))
    result = _libc.syscall(IO_URING_REGISTER, ring_fd, operation, buffer, count)
    number = ctypes.get_errno()
    if isinstance(argument, bytearray):
        argument[:] = buffer.raw
    if result < 0:
        raise OSError(number, os.strerror(number))
