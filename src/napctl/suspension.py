"""IRQ suspension from inside a Python program: `with suspended(loop):`. docs/python.md shows it at work.

This is the application's half: prefer_busy_poll on one epoll instance, which needs no privilege. The device's half,
deferral and suspension of the NAPI instance, is set by root (`napctl attach`); `status()` says whether it is.
"""

import errno
import os
import select
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import field

from napctl.kernel import epoll
from napctl.model.errors import BadInput, NapctlError, NotPermitted, Unsupported
from napctl.model.limits import CEILINGS
from napctl.model.settings import EpollParams, NapiSettings, kernel_name
from napctl.model.value import Value

__all__ = [
    "CANNOT_TELL",
    "CAN_BE_ACTIVE",
    "ENDED",
    "MISSING",
    "NOT_SET",
    "NOT_SUPPORTED",
    "NO_NAPI",
    "SEVERAL",
    "Active",
    "Status",
    "suspended",
]


CAN_BE_ACTIVE = "suspension can be active"
SEVERAL = "several NAPI ids"
MISSING = "device half missing"
NO_NAPI = "no NAPI id yet"
NOT_SET = "epoll half not set"
NOT_SUPPORTED = "not supported by this kernel"
CANNOT_TELL = "cannot tell"
ENDED = "ended"

EPOLL_LINK = "anon_inode:[eventpoll]"
REFUSALS: dict[int, tuple[type[NapctlError], str]] = {
    errno.EPERM: (NotPermitted, "a budget above 64 needs CAP_NET_ADMIN"),
    errno.ENOTTY: (Unsupported, "this kernel does not have them (Linux 6.9)"),
    errno.EOPNOTSUPP: (Unsupported, "this kernel was built without busy polling (CONFIG_NET_RX_BUSY_POLL)"),
}
"""ep_eventpoll_bp_ioctl() in fs/eventpoll.c, and the lack of it."""
NONE_SEEN = (
    "none of the {} descriptors that it watches has received a packet through a NAPI instance: "
    "no connection yet, or only such as have none: over loopback or a tun, say, or MPTCP"
)
DEVICE_HALF = ("defer_hard_irqs", "gro_flush_timeout_ns", "irq_suspend_timeout_ns")
ACCEPTED = "an asyncio or uvloop event loop, a selectors.EpollSelector, a select.epoll or an epoll descriptor"


class Status(Value, frozen=True, kw_only=True):
    """What can be known from inside, at one moment. As text: the verdict and its reasons, one line."""

    verdict: str
    """The most serious of what was found: one of the constants of this module, such as CAN_BE_ACTIVE."""
    reasons: tuple[str, ...]
    """What was found, the most serious first, with what to do: one clause each."""
    params: EpollParams | None = None
    """Of the epoll instance now; None: it is closed, or the block has ended."""
    watched: int | None = None
    """Descriptors that it watches, of any kind; None: not told."""
    sockets_by_napi: dict[int, int] = field(default_factory=dict)
    """How many of them are sockets whose last packet came through which NAPI instance: {napi id: sockets}."""
    napis: dict[int, NapiSettings | None] = field(default_factory=dict)
    """The device's half of each, as this network namespace has it; None: not told."""

    @property
    def can_be_active(self) -> bool:
        """Whether nothing that can be seen from inside stands against it. It is no proof that the program polls."""
        return self.verdict == CAN_BE_ACTIVE

    def __str__(self) -> str:
        return f"{self.verdict}: {'; '.join(self.reasons)}"


class Active(Value, frozen=True, kw_only=True):
    """One epoll instance that prefers busy polling, as long as the block of suspended() runs."""

    epoll_fd: int
    params: EpollParams
    """What was set."""
    former: EpollParams
    """What was found."""

    def status(self) -> Status:
        """What can be known from inside now. Cheap enough for a health check, too dear for every request.

        Looks at each watched socket, and asks the kernel for each NAPI instance in the calling thread's network
        namespace. Raises nothing: what cannot be read is said.
        """
        try:
            return _status(self)
        except ImportError as error:  # parts are loaded only now, and may be out of reach after a chroot
            return Status(verdict=CANNOT_TELL, reasons=(f"{error}; call it once before the program confines itself",))


@contextmanager
def suspended(
    target: Any, *, busy_poll_usecs: int = 0, busy_poll_budget: int = 64, prefer_busy_poll: bool = True
) -> Iterator[Active]:
    """Let whoever waits in this epoll instance poll its packets itself, so that interrupts can stay suspended.

    `target`: an asyncio or uvloop event loop, running or not; a selectors.EpollSelector; a select.epoll; or the
    descriptor of an epoll instance. `busy_poll_usecs`: longest spin of an epoll_wait, µs; 0: one poll.
    `busy_poll_budget`: packets that one poll may take.

    On exit the former parameters come back, unless somebody else has changed them meanwhile. A child forked inside the
    block shares the epoll instance; leaving the block in the child changes nothing.

    Raises BadInput for another kind of object, a closed one, or a value that the kernel does not take; Unsupported for
    a loop that does not wait in epoll and on kernels without EPIOCSPARAMS (before Linux 6.9); NotPermitted for a budget
    above 64 without CAP_NET_ADMIN, also when a former one above 64 cannot be brought back.
    """
    wanted = _checked(busy_poll_usecs, busy_poll_budget, prefer_busy_poll)
    hold = _HOLDS.begin(_epoll_fd(target), wanted)
    try:
        yield hold.active
    finally:
        _HOLDS.end(hold)


def _checked(usecs: int, budget: int, prefer: bool) -> EpollParams:
    for name, value in (("busy_poll_usecs", usecs), ("busy_poll_budget", budget)):
        most = CEILINGS[name]
        if not isinstance(value, int) or not 0 <= value <= most:
            raise BadInput(f"{name} must be a whole number from 0 to {most}, not {value!r}")
    return EpollParams(busy_poll_usecs=int(usecs), busy_poll_budget=int(budget), prefer_busy_poll=bool(prefer))


class _Hold:
    """A block that runs. `restores`: the parameters that its end brings back."""

    def __init__(self, active: Active):
        self.active = active
        self.restores = active.former


class _Holds:
    """The blocks that run in this process, by descriptor, the newest last."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """In the child of a fork: its blocks are the parent's, and a thread that held the lock is not there."""
        self._lock = threading.Lock()
        self._by_fd: dict[int, list[_Hold]] = {}

    def begin(self, fd: int, wanted: EpollParams) -> _Hold:
        with self._lock, _explained():
            hold = _Hold(Active(epoll_fd=fd, params=wanted, former=epoll.params(fd)))
            epoll.set_params(fd, wanted)
            self._by_fd.setdefault(fd, []).append(hold)
        return hold

    def end(self, hold: _Hold) -> None:
        fd = hold.active.epoll_fd
        with self._lock:
            holds = self._by_fd.get(fd, [])
            if hold not in holds:
                return  # in the child of a fork
            place = holds.index(hold)
            newer = holds[place + 1] if place + 1 < len(holds) else None
            holds.remove(hold)
            if not holds:
                del self._by_fd[fd]
            if newer is not None:  # blocks of two tasks or threads that overlap: the newer one goes on
                newer.restores = hold.restores
            elif _is_epoll(fd) and epoll.params(fd) == hold.active.params:
                with _explained():
                    epoll.set_params(fd, hold.restores)

    def running(self, active: Active) -> bool:
        with self._lock:
            return any(hold.active is active for hold in self._by_fd.get(active.epoll_fd, ()))


_HOLDS = _Holds()
os.register_at_fork(after_in_child=_HOLDS.forget)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind, why = REFUSALS.get(error.errno or 0, (NapctlError, str(error.strerror)))
        raise kind(f"busy-poll parameters of an epoll instance: {why}") from None


def _epoll_fd(target: Any) -> int:
    """The epoll descriptor behind a target. Raises BadInput, Unsupported."""
    if isinstance(target, int) and not isinstance(target, bool):
        return _verified(target, f"descriptor {target}")
    what = f"{type(target).__module__}.{type(target).__qualname__}"
    if callable(getattr(target, "run_forever", None)) and callable(getattr(target, "is_closed", None)):
        return _fd_of_loop(target, what)
    selects = isinstance(target, select.epoll) or hasattr(target, "select")  # a socket has a fileno() as well
    if not selects or isinstance(target, type):
        raise BadInput(f"suspended() takes {ACCEPTED}, not {what}")
    return _fd_of(target, what)


def _fd_of(selector: Any, what: str) -> int:
    fileno = getattr(selector, "fileno", None)
    if fileno is None:
        name = type(selector).__qualname__
        raise Unsupported(f"that {what} waits in {name}; interrupts are suspended for epoll alone")
    try:
        fd: int = fileno()
    except (ValueError, AttributeError):
        raise BadInput(f"that {what} is closed") from None
    return _verified(fd, f"the descriptor of that {what}")


def _fd_of_loop(loop: Any, what: str) -> int:
    if loop.is_closed():
        raise BadInput(f"that {what} is closed")
    selector = getattr(loop, "_selector", None)  # asyncio.selector_events.BaseSelectorEventLoop
    if selector is not None:
        return _fd_of(selector, what)
    uvloop = sys.modules.get("uvloop.loop")
    if uvloop is not None and isinstance(loop, uvloop.Loop):
        return _only_epoll_of_this_process()
    raise Unsupported(f"{what}: where this event loop keeps its epoll instance is not known; give the descriptor")


def _only_epoll_of_this_process() -> int:
    """uvloop does not tell its own."""
    from napctl.kernel.open_files import open_files  # noqa: PLC0415 - see _status()

    fds = open_files(_own_pid()).epolls
    if len(fds) != 1:
        raise Unsupported(f"which of {len(fds)} epoll instances is uvloop's cannot be told; give the descriptor")
    return fds[0]


def _verified(fd: int, what: str) -> int:
    if fd >= 0 and _is_epoll(fd):
        return fd
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        raise BadInput(f"{what} is not open") from None
    try:
        raise BadInput(f"{what} is no epoll instance but {_link(fd)}")
    except OSError:
        raise Unsupported(f"{what}: whether it is an epoll instance cannot be told without /proc") from None


def _link(fd: int) -> str:
    return os.readlink(f"/proc/thread-self/fd/{fd}")  # noqa: PTH115 - pathlib is not needed for anything else


def _is_epoll(fd: int) -> bool:
    try:
        return _link(fd) == EPOLL_LINK
    except OSError:
        return False


def _own_pid() -> int:
    """Our pid as /proc has it, which may be that of another PID namespace. Raises OSError without /proc."""
    return int(os.readlink("/proc/self"))  # noqa: PTH115


def _status(active: Active) -> Status:
    from napctl.kernel.open_files import watched as watched_by  # noqa: PLC0415 - loads what a program that never asks need not have

    if not _HOLDS.running(active):
        return Status(verdict=ENDED, reasons=("this process has left the block, or was forked inside it",))
    try:
        params = epoll.params(active.epoll_fd)
        watched = watched_by(_own_pid(), active.epoll_fd)
    except OSError as error:
        if not _is_epoll(active.epoll_fd):
            return Status(verdict=ENDED, reasons=("the epoll instance is closed",))
        return Status(verdict=CANNOT_TELL, reasons=(f"what the epoll instance watches: {error.strerror}",))
    by_napi = _by_napi(number for number, _ in watched)
    napis, found = _device_halves(by_napi) if by_napi else ({}, [(NO_NAPI, NONE_SEEN.format(len(watched)))])
    if not params.prefer_busy_poll:
        found.insert(0, (NOT_SET, "prefer_busy_poll is off on this epoll instance"))
    if not found:
        names = ", ".join(f"NAPI {napi_id}" for napi_id in by_napi)
        found = [(CAN_BE_ACTIVE, f"both halves are set for {names}; who polls is seen with `napctl watch`")]
    return Status(
        verdict=found[0][0],
        reasons=tuple(words for _, words in found),
        params=params,
        watched=len(watched),
        sockets_by_napi=by_napi,
        napis=napis,
    )


def _by_napi(fds: Iterable[int]) -> dict[int, int]:
    """How many of these descriptors are sockets fed by which NAPI instance."""
    from napctl.kernel.sockets import incoming_napi_id  # noqa: PLC0415 - see _status()

    counts: dict[int, int] = {}
    for fd in fds:
        try:
            napi_id = incoming_napi_id(fd)
        except OSError:  # a pipe or a timer; or closed meanwhile
            continue
        if napi_id is not None:
            counts[napi_id] = counts.get(napi_id, 0) + 1
    return dict(sorted(counts.items()))


Found = list[tuple[str, str]]
"""What stands against suspension: verdict and reason, the most serious first."""


def _device_halves(by_napi: dict[int, int]) -> tuple[dict[int, NapiSettings | None], Found]:
    from napctl.kernel.netdev import Netdev  # noqa: PLC0415 - see _status()

    napis: dict[int, NapiSettings | None] = dict.fromkeys(by_napi)
    try:
        with Netdev() as netdev:
            for napi_id in by_napi:
                napi = netdev.napi(napi_id)
                napis[napi_id] = napi.settings if napi else None
    except (NapctlError, OSError) as error:  # no such family; or AF_NETLINK is forbidden to this service
        return napis, [(CANNOT_TELL, f"the device half cannot be read: {error}"), *_several(by_napi, napis)]
    found = [trouble for napi_id, settings in napis.items() for trouble in _troubles(napi_id, settings)]
    order = (NOT_SUPPORTED, MISSING, CANNOT_TELL)
    return napis, sorted(found, key=lambda trouble: order.index(trouble[0])) + _several(by_napi, napis)


def _troubles(napi_id: int, settings: NapiSettings | None) -> Found:
    """What is not as suspension needs it (Documentation/networking/napi.rst, "IRQ suspension")."""
    if settings is None:
        return [(CANNOT_TELL, f"NAPI {napi_id} belongs to no device of this network namespace; look from the host's")]
    if settings.irq_suspend_timeout_ns is None:
        return [(NOT_SUPPORTED, f"NAPI {napi_id} has no irq-suspend-timeout (Linux 6.13)")]
    missing = [kernel_name(setting) for setting in DEVICE_HALF if not getattr(settings, setting)]
    how = f"as root: napctl attach {os.getpid()}"
    return [(MISSING, f"NAPI {napi_id}: {', '.join(missing)} not set; {how}")] if missing else []


def _several(by_napi: dict[int, int], napis: dict[int, NapiSettings | None]) -> Found:
    """An epoll instance follows one NAPI id (ep_set_busy_poll_napi_id() in fs/eventpoll.c)."""
    if len(by_napi) < 2:
        return []
    mix = ", ".join(f"{count} of NAPI {napi_id}" for napi_id, count in by_napi.items())
    longest_ns = max((settings.irq_suspend_timeout_ns or 0 for settings in napis.values() if settings), default=0)
    wait = f"wait as long as {longest_ns / 1e6:g} ms" if longest_ns else "wait for their timer"
    return [(SEVERAL, f"sockets: {mix}; the kernel polls that of the last event, and packets of the others may {wait}")]
