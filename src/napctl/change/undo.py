"""Putting settings back: only those that still have the value which napctl gave them."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from napctl.kernel import epoll, processes
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.model.change import Change, EpollChange, NapiChange, Restored
from napctl.model.settings import EpollParams, NapiSettings

Outcome = Literal["restored", "unchanged", "left", "gone"]


def undo(change: Change, *, force: bool = False) -> list[Restored]:
    """Restore the former value of each setting of a change; safe to repeat, and after any part of it was made.

    A setting that no longer has the value which napctl gave it was changed by somebody else and is left alone, unless
    `force`. Raises Refused or OSError if the kernel refuses.
    """
    return _undo_napi(change, force) if isinstance(change, NapiChange) else _undo_epoll(change, force)


def _undo_napi(change: NapiChange, force: bool) -> list[Restored]:
    names = [name for name in NapiSettings.__struct_fields__ if getattr(change.after, name) is not None]
    with _netdev(change.netns) as netdev:
        napi = netdev.napi(change.napi_id) if netdev else None
        if netdev is None or napi is None or napi.ifindex != change.ifindex:
            return [_row(change, name, "gone", None) for name in names]

        def write(name: str, value: Any) -> None:
            netdev.set_napi(change.napi_id, NapiSettings(**{name: value}))

        return [_settle(change, name, getattr(napi.settings, name), write, force) for name in names]


def _undo_epoll(change: EpollChange, force: bool) -> list[Restored]:
    names = [
        name for name in EpollParams.__struct_fields__ if getattr(change.before, name) != getattr(change.after, name)
    ]
    found = processes.process(change.pid)
    if found is None or found.started_ticks != change.started_ticks:
        return [_row(change, name, "gone", None) for name in names]
    try:
        with processes.Handle(change.pid) as handle, handle.copy_of(change.epoll_fd) as copy:
            now = epoll.params(copy)

            def write(name: str, value: Any) -> None:
                current = epoll.params(copy)
                fields = {each: getattr(current, each) for each in EpollParams.__struct_fields__}
                epoll.set_params(copy, EpollParams(**fields | {name: value}))

            return [_settle(change, name, getattr(now, name), write, force) for name in names]
    except OSError as error:
        # gone meanwhile, descriptor closed, or by now something that is no epoll instance
        if error.errno in (errno.ESRCH, errno.EBADF, errno.ENOTTY, errno.EINVAL):
            return [_row(change, name, "gone", None) for name in names]
        raise


def _settle(change: Change, name: str, now: Any, write: Callable[[str, Any], None], force: bool) -> Restored:
    before, after = getattr(change.before, name), getattr(change.after, name)
    if now == before:
        return _row(change, name, "unchanged", now)
    if now != after and not force:
        return _row(change, name, "left", now)
    write(name, before)
    return _row(change, name, "restored", now)


def _row(change: Change, name: str, outcome: Outcome, found: Any) -> Restored:
    return Restored(
        where=change.where,
        setting=name,
        outcome=outcome,
        before=str(getattr(change.before, name)),
        found="" if found is None else str(found),
    )


@contextmanager
def _netdev(netns: int) -> Iterator[Netdev | None]:
    """The family in the namespace with that inode number; None if that namespace is gone."""
    namespace = NetworkNamespace.find(netns)
    if namespace is None:
        yield None
        return
    with namespace, Netdev(namespace) as netdev:
        yield netdev
