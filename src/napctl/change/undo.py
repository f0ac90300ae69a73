"""Putting settings back: only those that still have the value which napctl gave them."""

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from napctl.kernel import epoll, processes
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.model.change import Change, EpollChange, NapiChange, Restored
from napctl.model.errors import Unsupported
from napctl.model.settings import EpollParams, NapiSettings

Outcome = Literal["restored", "unchanged", "left", "gone"]


def undo(change: Change, *, force: bool = False) -> list[Restored]:
    """Restore the former value of each setting of a change; safe to repeat, and after any part of it was made.

    A setting that no longer has the value which napctl gave it was changed by somebody else and is left alone, unless
    `force`. Raises Refused or OSError if the kernel refuses.
    """
    match change:
        case NapiChange():
            return _undo_napi(change, force)
        case EpollChange():
            return _undo_epoll(change, force)
    raise NotImplementedError


def all_gone(change: Change) -> list[Restored]:
    """What undoing comes to after a reboot, which has undone everything."""
    names = [name for name in change.after.__struct_fields__ if getattr(change.after, name) is not None]
    return [_row(change, name, "gone", None) for name in names]


def _undo_napi(change: NapiChange, force: bool) -> list[Restored]:
    names = [name for name in NapiSettings.__struct_fields__ if getattr(change.after, name) is not None]
    with _namespace_of(change) as netns:
        if netns is None:
            return [_row(change, name, "gone", None) for name in names]
        with Netdev(netns) as netdev:

            def read(name: str) -> Any:
                napi = netdev.napi(change.napi_id)
                return getattr(napi.settings, name) if napi else None

            def write(name: str, value: Any) -> None:
                netdev.set_napi(change.napi_id, NapiSettings(**{name: value}))

            return [_settle(change, name, read, write, force) for name in names]


def _undo_epoll(change: EpollChange, force: bool) -> list[Restored]:
    names = [
        name for name in EpollParams.__struct_fields__ if getattr(change.before, name) != getattr(change.after, name)
    ]
    try:
        with processes.Handle(change.pid) as handle, handle.copy_of(change.epoll_fd) as copy:
            found = processes.process(change.pid)
            if found is None or found.started_ticks != change.started_ticks:
                return [_row(change, name, "gone", None) for name in names]

            def read(name: str) -> Any:
                return getattr(epoll.params(copy), name)

            def write(name: str, value: Any) -> None:
                current = epoll.params(copy)
                fields = {each: getattr(current, each) for each in EpollParams.__struct_fields__}
                epoll.set_params(copy, EpollParams(**fields | {name: value}))

            return [_settle(change, name, read, write, force) for name in names]
    except OSError as error:
        # gone meanwhile, descriptor closed, or by now something that is no epoll instance
        if error.errno in (errno.ESRCH, errno.EBADF, errno.ENOTTY, errno.EINVAL):
            return [_row(change, name, "gone", None) for name in names]
        raise


def _settle(
    change: Change, name: str, read: Callable[[str], Any], write: Callable[[str, Any], None], force: bool
) -> Restored:
    before, after, now = getattr(change.before, name), getattr(change.after, name), read(name)
    if now == before:
        return _row(change, name, "unchanged", now)
    if now != after and not force:
        return _row(change, name, "left", now)
    write(name, before)
    if read(name) != before:
        raise Unsupported(f"{change.where}: {name} was set back to {before} and reads {read(name)}")
    return _row(change, name, "restored", now)


def _row(change: Change, name: str, outcome: Outcome, found: Any) -> Restored:
    return Restored(
        where=change.where,
        setting=name,
        outcome=outcome,
        before=getattr(change.before, name),
        found=found,
    )


@contextmanager
def _namespace_of(change: NapiChange) -> Iterator[NetworkNamespace | None]:
    """The namespace in which the NAPI instance is now; None if it is gone.

    Its own; or ours, to which the kernel gives a NIC back when its container ends (default_device_exit_net() in
    net/core/dev.c). Raises Unsupported if the device is there but down: its instances are hidden then, and drivers with
    persistent NAPI configuration bring the settings back when it comes up.
    """
    with ExitStack() as stack:
        found = NetworkNamespace.find(change.netns)
        places = [stack.enter_context(each) for each in (found, NetworkNamespace.current()) if each]
        for netns in places:
            with Netdev(netns) as netdev:
                napi = netdev.napi(change.napi_id)
            if napi is not None:
                yield netns
                return
        own = next((link for link in links(found) if link.ifindex == change.ifindex), None) if found else None
        if own is not None and not own.up and own.name == change.device:
            raise Unsupported(f"{change.where}: {change.device} is down, and its settings may come back with it")
        yield None
