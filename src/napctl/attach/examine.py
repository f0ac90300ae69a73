"""Examine a process: its epoll instances, the NAPI instances that feed their sockets, and the devices of those."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from napctl.kernel import capabilities, epoll, processes
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.processes import Process
from napctl.model.errors import BadInput, NotPermitted, Unsupported
from napctl.model.machine import Napi
from napctl.model.settings import EpollParams


@dataclass(frozen=True)
class EpollInstance:
    """One epoll instance of a process: its parameters, and its sockets by the NAPI instance that feeds them."""

    fd: int
    params: EpollParams
    watched: int
    """Descriptors it watches, of any kind."""
    sockets_by_napi: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LocatedNapi:
    """A NAPI instance, the name of its device, and the network namespace (inode number) in which both are."""

    napi: Napi
    device: str
    netns: int


@dataclass(frozen=True)
class Examination:
    """What was found. A NAPI id that belongs to no device of the process's namespace nor of ours is not in `napis`."""

    process: Process
    netns: int
    instances: tuple[EpollInstance, ...]
    napis: dict[int, LocatedNapi]


def examine(process: Process) -> Examination:
    """Look at a process from outside, changing and stopping nothing.

    Raises BadInput if it goes meanwhile, NotPermitted without ptrace rights over it, Unsupported on kernels without
    EPIOCGPARAMS (before Linux 6.9) or without the netdev family.
    """
    with _explained(process), NetworkNamespace.of_process(process.pid) as netns:
        instances = tuple(_instances(process))
        ids = {napi_id for instance in instances for napi_id in instance.sockets_by_napi}
        napis = _locate(ids, netns) if ids else {}
        return Examination(process=process, netns=netns.inode, instances=instances, napis=napis)


def _instances(process: Process) -> Iterator[EpollInstance]:
    fds = processes.epoll_fds(process.pid)
    with processes.Handle(process.pid) as handle:
        for fd in fds:
            with handle.copy_of(fd) as copy:
                params = epoll.params(copy)
            watched = processes.watched_fds(process.pid, fd)
            yield EpollInstance(
                fd=fd, params=params, watched=len(watched), sockets_by_napi=handle.incoming_napi_ids(watched)
            )


def _locate(ids: set[int], netns: NetworkNamespace) -> dict[int, LocatedNapi]:
    """In the process's namespace; else in ours, where a bridge or router passes a container's packets on."""
    found: dict[int, LocatedNapi] = {}
    with NetworkNamespace.current() as ours:
        for namespace in (netns, ours):
            names = {link.ifindex: link.name for link in links(namespace)}
            with Netdev(namespace) as netdev:
                for napi_id in ids - found.keys():
                    napi = netdev.napi(napi_id)
                    if napi is not None:
                        found[napi_id] = LocatedNapi(
                            napi, names.get(napi.ifindex, f"if{napi.ifindex}"), namespace.inode
                        )
    return found


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
    except OSError as error:
        if error.errno == errno.ENOTTY:
            raise Unsupported("this kernel has no busy-poll parameters of epoll instances (Linux 6.9)") from None
        raise Unsupported(f"{who}: {os.strerror(error.errno or 0)}") from None
