"""Look at one process from outside: its epoll instances, its sockets, and the NAPI instances that feed them."""

import errno
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from napctl.kernel import capabilities, epoll, openfiles, processes, sockets
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.openfiles import OpenFiles
from napctl.kernel.processes import Process
from napctl.model.errors import BadInput, NapctlError, NotPermitted, Unsupported
from napctl.model.settings import EpollParams, SocketPolling
from napctl.model.waits import ThreadWaits


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

    @property
    def open_udp(self) -> bool:
        """Whether it watches datagram sockets that anybody may send to, over any queue of a device."""
        return any(each.kind == "udp" for each in self.listeners)

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Process and descriptor, wherever it is."""
        return ((self.process.pid, self.fd), *self.also)


@dataclass(frozen=True)
class LooseSocket:
    """A socket of a NAPI instance, or of AF_XDP, that no epoll instance watches."""

    process: Process
    fd: int
    inode: int
    kind: sockets.Kind
    napi_id: int | None
    polling: SocketPolling
    nonblocking: bool
    threads: tuple[ThreadWaits, ...] | None = None


@dataclass(frozen=True)
class Look:
    """One process."""

    process: Process
    netns: int
    files: OpenFiles
    instances: list[EpollInstance]
    watched: set[int]
    """Inode numbers of the sockets that its epoll instances watch."""


def look_at(process: Process) -> Look | None:
    """None if it has gone."""
    with _explained(process):
        try:
            files = openfiles.open_files(process.pid)
            if not (files.epolls or files.sockets or files.rings):
                return Look(process, 0, files, [], set())
            with NetworkNamespace.of_process(process.pid) as netns, processes.Handle(process.pid) as handle:
                now = processes.process(process.pid)  # what was read may be of a successor with the same pid
                if now is None or now.started_ticks != process.started_ticks:
                    return None
                found = Look(process, netns.inode, files, [], set())
                for fd in files.epolls:
                    instance = _instance(found, handle, fd)
                    if instance is not None:
                        found.instances.append(instance)
                return found
        except (FileNotFoundError, ProcessLookupError, BadInput):
            return None


def _instance(look: Look, handle: processes.Handle, fd: int) -> EpollInstance | None:
    """None if the descriptor was closed meanwhile, or is by now something else."""
    try:
        with handle.copy_of(fd) as copy:
            params = epoll.params(copy)
        watched = openfiles.watched(look.process.pid, fd)
    except OSError as error:
        gone = error.errno in (errno.EBADF, errno.ENOENT)
        if gone or (error.errno == errno.ENOTTY and not _is_epoll(look.process, fd)):
            return None
        raise
    by_napi: dict[int, int] = defaultdict(int)
    listeners = []
    for number in _sockets(look, watched):
        napi_id, listener = _socket(look, handle, number)
        if napi_id:
            by_napi[napi_id] += 1
        if listener:
            listeners.append(listener)
    return EpollInstance(look.process, fd, params, len(watched), dict(by_napi), tuple(listeners))


def _sockets(look: Look, watched: Mapping[int, int]) -> Iterator[int]:
    """Those of the watched descriptors that are sockets; under their present number, if they were given another one."""
    by_inode = {inode: number for number, inode in look.files.sockets.items()}
    for number, inode in watched.items():
        here = number if look.files.sockets.get(number) == inode else by_inode.get(inode)
        if here is not None:
            look.watched.add(inode)
            yield here


def _socket(look: Look, handle: processes.Handle, number: int) -> tuple[int | None, Listener | None]:
    """What feeds it, and whether it takes in what is new. A connection, of which there may be many, is asked least."""
    try:
        with handle.copy_of(number) as copy:
            napi_id = sockets.incoming_napi_id(copy)
            if napi_id and sockets.is_stream(copy):
                return napi_id, None
            facts = sockets.facts(copy)
    except OSError as error:
        if error.errno in (errno.ENOTSOCK, errno.EBADF):  # closed meanwhile
            return None, None
        raise
    if not facts.listening and (facts.kind != "udp" or facts.connected):
        return napi_id, None
    group = (facts.kind, look.netns, facts.address)
    return napi_id, Listener(look.files.sockets[number], number, facts.kind, facts.reuseport, group)


def _is_epoll(process: Process, fd: int) -> bool:
    try:
        return os.readlink(f"/proc/{process.pid}/fd/{fd}") == openfiles.EPOLL  # noqa: PTH115 - as in openfiles
    except OSError:
        return False


def loose_sockets(look: Look, in_epoll: set[int]) -> Iterator[LooseSocket]:
    """Sockets that packets reach and no epoll instance of the target watches."""
    left = {inode: fd for fd, inode in look.files.sockets.items() if inode not in in_epoll}
    if not left:
        return
    with _explained(look.process), processes.Handle(look.process.pid) as handle:
        for inode, fd in left.items():
            try:
                with handle.copy_of(fd) as copy:
                    facts = sockets.facts(copy)
                    if facts.kind == "other" or facts.listening:
                        continue
                    yield LooseSocket(
                        look.process, fd, inode, facts.kind, sockets.incoming_napi_id(copy), sockets.polling(copy),
                        nonblocking=not os.get_blocking(copy),
                    )  # fmt: skip
            except OSError as error:
                if error.errno not in (errno.ENOTSOCK, errno.EBADF):
                    raise


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
