"""Processes whose io_uring instances busy poll NAPI instances."""

import errno
from collections.abc import Collection, Iterator

from napctl.kernel import io_uring, processes
from napctl.kernel.epoll_instances import SAMPLE, ask_sockets, spread
from napctl.kernel.open_files import OpenFiles
from napctl.kernel.processes import Process
from napctl.kernel.sockets import incoming_napi_id
from napctl.model.machine import RingPoller
from napctl.model.settings import RingPolling

__all__ = ["ring_pollers_of"]


PATIENCE_SECONDS = 0.05
"""With a ring on which somebody works all the time: there may be hundreds, and it is left out then."""


def ring_pollers_of(process: Process, files: OpenFiles, ours: Collection[int]) -> Iterator[RingPoller]:
    """Of one process, with what feeds its sockets; those that poll none of `ours` are left out. Raises OSError."""
    polling = {fd: found for fd in files.rings if (found := _polling(process.pid, fd)) and found.polls}
    if not polling:
        return
    with processes.Handle.of(process) as handle:
        told = dict(ask_sockets(handle, spread(sorted(files.sockets), SAMPLE), incoming_napi_id))
    napi_ids = tuple(sorted({napi_id for napi_id in told.values() if napi_id}))
    for fd, found in polling.items() if set(ours) & set(napi_ids) else ():
        yield RingPoller(pid=process.pid, name=process.name, fd=fd, polling=found, napi_ids=napi_ids)


def _polling(pid: int, fd: int) -> RingPolling | None:
    try:
        return io_uring.facts(fd, pid, PATIENCE_SECONDS).polling
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return None
