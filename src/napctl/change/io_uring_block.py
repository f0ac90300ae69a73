"""The NAPI busy polling of one io_uring instance, as the block of settings that a change is made on."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from msgspec.structs import replace

from napctl.kernel import io_uring, processes
from napctl.kernel.epoll_instances import copy_of_ring
from napctl.model.change import Holder, IoUringChange
from napctl.model.errors import Unsupported
from napctl.model.settings import DYNAMIC, RingPolling

__all__ = ["io_uring_block"]


GONE = (errno.ESRCH, errno.ENOENT, errno.EBADF)
"""What a descriptor of an ended process says, or one that is closed, or by now something else."""


class IoUringBlock:
    """Through a copy of a descriptor."""

    def __init__(self, change: IoUringChange, place: Holder, fd: int):
        self._where, self._place, self._fd = change.where, place, fd

    def read(self) -> RingPolling | None:
        """None if it is gone: our copy keeps the ring of a process that has ended.

        A ring with a list of its own is refused before it is changed. So what looks like an empty one was left by a
        napctl that was killed while it switched its own polling off: that is undone, too.
        """
        found = processes.process(self._place.pid)
        if found is None or found.started_ticks != self._place.started_ticks:
            return None
        polling = io_uring.facts(self._fd).polling
        return replace(polling, tracking=DYNAMIC) if polling == io_uring.FORGETTING else polling

    def write(self, values: Mapping[str, Any]) -> None:
        """All of it is set at once. Raises Unsupported, with the reason, if the ring refuses it."""
        now = io_uring.facts(self._fd).polling
        if now is None:
            return
        try:
            io_uring.set_polling(self._fd, replace(now, **values))
        except OSError as error:  # its EACCES is not about rights
            raise Unsupported(f"{self._where}: {io_uring.why_refused(error.errno or 0)}") from None


@contextmanager
def io_uring_block(change: IoUringChange) -> Iterator[IoUringBlock | None]:
    """Through whoever holds it by now; None if it is gone."""
    with ExitStack() as stack:
        found = (_held(stack, change, place) for place in change.holders)
        yield next((block for block in found if block is not None), None)


def _held(stack: ExitStack, change: IoUringChange, place: Holder) -> IoUringBlock | None:
    try:
        handle = stack.enter_context(processes.Handle(place.pid))
        block = IoUringBlock(change, place, stack.enter_context(copy_of_ring(handle, place.fd, change.inode)))
        return block if block.read() is not None else None
    except OSError as error:
        if error.errno not in GONE:
            raise
        return None
