"""Look at one process from outside: its epoll instances, its sockets, and the NAPI instances that feed them."""

import errno
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from napctl.attach.no_napi_id import why_unfed
from napctl.kernel import capabilities, io_uring, open_files, processes, sockets
from napctl.kernel.epoll_instances import EpollSockets, ask_sockets, copy_of_ring, epoll_instances, nested, sample
from napctl.kernel.io_uring import RingFacts
from napctl.kernel.listeners import listeners_of
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.open_files import OpenFiles
from napctl.kernel.processes import Process
from napctl.kernel.sockets import SocketFacts
from napctl.model.errors import BadInput, NapctlError, NotPermitted, Unsupported
from napctl.model.settings import EpollParams, RingPolling, SocketPolling
from napctl.model.waits import ThreadWaits

__all__ = [
    "PLAIN_SOCKETS",
    "EpollInstance",
    "Key",
    "Listener",
    "Look",
    "PlainSocket",
    "Ring",
    "View",
    "joined",
    "look_at",
    "plain_sockets_of",
    "rings_of",
]


Key = tuple[int, int, int]
"""By which something is known again: pid, start, and the descriptor of an epoll instance or ring, or PLAIN_SOCKETS for
all sockets of a process that no epoll instance watches."""
PLAIN_SOCKETS = -1


@dataclass(frozen=True)
class Listener:
    """A socket that takes in new connections, or datagrams of anybody. Those with one `group` share the port."""

    inode: int
    fd: int
    kind: sockets.Kind
    reuseport: bool
    group: tuple[str, int, bytes]
    """Kind, network namespace and address."""


@dataclass(frozen=True)
class View:
    """One epoll instance as one of the processes that hold it sees it: with the sockets that it holds as well."""

    process: Process
    fd: int
    params: EpollParams
    watched: int
    """Descriptors that the instance watches, of any kind, whoever holds them."""
    napis: Mapping[int, int]
    """NAPI instance that fed a socket last, by its inode number."""
    listeners: tuple[Listener, ...]
    unfed: str
    outer: int | None
    """Descriptor of an epoll instance that watches this one."""


@dataclass(frozen=True)
class EpollInstance:
    """One epoll instance, by the first process that holds it."""

    process: Process
    fd: int
    params: EpollParams
    watched: int
    """Descriptors it watches, of any kind."""
    sockets_by_napi: Mapping[int, int] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    also: tuple[tuple[int, int], ...] = ()
    """The same instance elsewhere, as after a fork: process and descriptor."""
    threads: tuple[ThreadWaits, ...] | None = None
    """How threads waited in it; None: nobody looked."""
    unfed: str = ""
    """Why no NAPI instance feeds it; empty: one does, or it has no connection."""
    outer: int | None = None
    """Descriptor of an epoll instance that watches this one."""

    @property
    def open_udp(self) -> bool:
        """Whether it watches datagram sockets that anybody may send to, over any queue of a device."""
        return any(each.kind == "udp" for each in self.listeners)

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Process and descriptor, wherever it is."""
        return ((self.process.pid, self.fd), *self.also)

    @property
    def where(self) -> str:
        """As a change of it says (model/change.py)."""
        return f"epoll {self.fd} of {self.process.name} ({self.process.pid})"

    @property
    def key(self) -> Key:
        """By its first holder."""
        return self.process.pid, self.process.started_ticks, self.fd


@dataclass(frozen=True)
class PlainSocket:
    """A socket of a NAPI instance, or of AF_XDP, that no epoll instance watches."""

    process: Process
    fd: int
    inode: int
    kind: sockets.Kind
    napi_id: int | None
    polling: SocketPolling
    nonblocking: bool
    threads: tuple[ThreadWaits, ...] | None = None

    @property
    def where(self) -> str:
        """As a change of it says (model/change.py)."""
        return f"socket {self.fd} of {self.process.name} ({self.process.pid})"

    @property
    def key(self) -> Key:
        """Of all such sockets of its process."""
        return self.process.pid, self.process.started_ticks, PLAIN_SOCKETS


@dataclass(frozen=True)
class Ring:
    """One io_uring instance, by the first process that holds it."""

    process: Process
    fd: int
    inode: int
    facts: RingFacts | None
    """None: somebody worked on it all the time."""
    refusal: int
    """With which error it refuses to be set from outside; 0: it does not."""
    napis: frozenset[int] = frozenset()
    """NAPI instances that may feed it: of all sockets of its processes that no epoll instance watches, and of those
    that are registered with it."""
    also: tuple[tuple[int, int], ...] = ()
    """As of an EpollInstance."""
    threads: tuple[ThreadWaits, ...] | None = None
    """As of an EpollInstance."""

    @property
    def polling(self) -> RingPolling | None:
        """None: it is not known."""
        return self.facts.polling if self.facts else None

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Process and descriptor, wherever it is."""
        return ((self.process.pid, self.fd), *self.also)

    @property
    def where(self) -> str:
        """As a change of it says (model/change.py)."""
        return f"ring {self.fd} of {self.process.name} ({self.process.pid})"

    @property
    def key(self) -> Key:
        """By its first holder."""
        return self.process.pid, self.process.started_ticks, self.fd


@dataclass(frozen=True)
class Look:
    """One process."""

    process: Process
    netns: int
    files: OpenFiles
    instances: list[View]
    watched: set[int]
    """Inode numbers of all that its epoll instances watch."""


def look_at(process: Process, most_sockets: int | None = None) -> Look | None:
    """None if it has gone. `most_sockets`: of each epoll instance, so many of its sockets and all its listeners."""
    with _explained(process):
        try:
            files = open_files.open_files(process.pid)
            if not (files.epolls or files.sockets or files.rings):
                return Look(process, 0, files, [], set())
            with NetworkNamespace.of_process(process.pid) as netns, processes.Handle.of(process) as handle:
                found = Look(process, netns.inode, files, [], set())
                many = most_sockets is not None and len(files.sockets) > most_sockets
                listening = {one.inode for one in listeners_of(found.netns, process.pid)} if many else ()
                seen = list(
                    epoll_instances(handle, files, _napi_and_facts, most_sockets=most_sockets, always=listening)
                )
                outers = nested(process.pid, seen)
                for each in seen:
                    found.watched.update(inode for _, inode in each.watched)
                    found.instances.append(_view(found, each, netns, outers.get(each.fd)))
                return found
        except (FileNotFoundError, ProcessLookupError, BadInput):
            return None


def _view(
    look: Look,
    seen: EpollSockets[tuple[int | None, SocketFacts | None]],
    netns: NetworkNamespace,
    outer: int | None,
) -> View:
    napis = {seen.sockets[fd]: napi_id for fd, (napi_id, _) in seen.told.items() if napi_id}
    listeners = []
    for fd, (_, facts) in seen.told.items():
        if facts and (facts.listening or (facts.kind == "udp" and not facts.connected)):
            group = (facts.kind, look.netns, facts.address)
            listeners.append(Listener(seen.sockets[fd], fd, facts.kind, facts.reuseport, group))
    unfed = "" if napis else why_unfed(netns, (facts for _, facts in seen.told.values() if facts))
    return View(look.process, seen.fd, seen.params, len(seen.watched), napis, tuple(listeners), unfed, outer)


def joined(views: Sequence[View]) -> EpollInstance:
    """One epoll instance, from all its holders' views: each of its sockets may be another holder's alone."""
    first = views[0]
    napis = {inode: napi_id for each in views for inode, napi_id in each.napis.items()}
    listeners = {one.inode: one for each in reversed(views) for one in each.listeners}
    return EpollInstance(
        process=first.process,
        fd=first.fd,
        params=first.params,
        watched=first.watched,
        sockets_by_napi=dict(Counter(napis.values())),
        listeners=tuple(listeners.values()),
        also=tuple((each.process.pid, each.fd) for each in views[1:]),
        unfed="" if napis else next((each.unfed for each in views if each.unfed), ""),
        outer=next((each.outer for each in views if each.outer is not None), None),
    )


def _napi_and_facts(socket_fd: int) -> tuple[int | None, SocketFacts | None]:
    """What feeds a socket, and what it is. A connection that is fed, of which there may be many, is asked least."""
    napi_id = sockets.incoming_napi_id(socket_fd)
    return napi_id, None if napi_id and sockets.is_stream(socket_fd) else sockets.facts(socket_fd)


def plain_sockets_of(look: Look, in_epoll: set[int], most_sockets: int | None = None) -> Iterator[PlainSocket]:
    """Sockets that packets reach and no epoll instance of the target watches; of many, so many, evenly spread."""
    left = {inode: fd for fd, inode in look.files.sockets.items() if inode not in in_epoll}  # one of each's numbers
    if not left:
        return
    inodes = {fd: inode for inode, fd in left.items()}
    with _explained(look.process), processes.Handle.of(look.process) as handle:
        for fd, each in ask_sockets(handle, sample(inodes, most_sockets), _as_plain_socket):
            if each is not None:
                facts, napi_id, polling, blocking = each
                yield PlainSocket(
                    look.process, fd, inodes[fd], facts.kind, napi_id, polling, nonblocking=not blocking
                )  # fmt: skip


def _as_plain_socket(socket_fd: int) -> tuple[SocketFacts, int | None, SocketPolling, bool] | None:
    """None for one that takes no packets itself."""
    facts = sockets.facts(socket_fd)
    if facts.kind == "other" or facts.listening:
        return None
    return facts, sockets.incoming_napi_id(socket_fd), sockets.polling(socket_fd), os.get_blocking(socket_fd)


def rings_of(look: Look) -> Iterator[Ring]:
    """Its io_uring instances, but for those that are closed meanwhile."""
    if not look.files.rings:
        return
    until = time.monotonic() + io_uring.PATIENCE_SECONDS  # for all of them
    with _explained(look.process), processes.Handle.of(look.process) as handle:
        for fd in look.files.rings:
            inode = open_files.inode_of(look.process.pid, fd)
            if inode is None:
                continue
            try:
                with copy_of_ring(handle, fd, inode) as copy:
                    facts = _facts(copy, max(0.0, until - time.monotonic()))
                    refusal, polling = io_uring.refusal(copy) if facts is not None else (0, None)
                    if facts is not None and polling is not None:
                        facts = replace(facts, polling=polling)  # which is of one moment also by kernels before 6.15
                    yield Ring(look.process, fd, inode, facts, refusal)
            except OSError as error:
                if error.errno not in (errno.EBADF, errno.ENOENT):
                    raise


def _facts(ring_fd: int, patience_seconds: float) -> RingFacts | None:
    try:
        return io_uring.facts(ring_fd, patience_seconds=patience_seconds)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return None


@contextmanager
def _explained(process: Process) -> Iterator[None]:
    who = f"{process.name} ({process.pid})"
    try:
        yield
    except PermissionError:
        why = capabilities.why_refused(capabilities.held(), everywhere=capabilities.in_initial_user_namespace())
        raise NotPermitted(f"{who}: its descriptors cannot be read: {why}") from None
    except (FileNotFoundError, ProcessLookupError):
        raise BadInput(f"{who}: it ended meanwhile") from None
    except NapctlError:
        raise
    except OSError as error:
        if error.errno == errno.ENOTTY:
            raise Unsupported("this kernel has no busy-poll parameters of epoll instances (Linux 6.9)") from None
        raise Unsupported(f"{who}: {os.strerror(error.errno or 0)}") from None
