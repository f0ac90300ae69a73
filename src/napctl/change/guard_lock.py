"""Whether the guard of the service watches: it holds a lock, which the kernel takes from it however it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napctl.kernel.file_lock import lock_file, taken
from napctl.model.change import Guard
from napctl.model.errors import NapctlError, NotPermitted

__all__ = ["guard_lock", "is_on_watch", "service_guard"]


FILE = "guard"
PATIENCE_SECONDS = 0.5


def service_guard(wait_ns: int) -> Guard:
    """For the journal: whoever holds the lock there is to restore, so long after the keeper's end."""
    return Guard(pid=0, started_ticks=0, deadline_boot_ns=0, wait_ns=wait_ns)


@contextmanager
def guard_lock(directory: Path) -> Iterator[None]:
    """Be the guard of the service. Raises NapctlError if another process is, NotPermitted if the directory cannot be
    written."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = lock_file(directory / FILE)
    except OSError as error:
        raise NotPermitted(f"{directory}: {error.strerror}; be root or set NAPCTL_STATE_DIR") from None
    try:
        if not taken(lock, patience_seconds=PATIENCE_SECONDS):  # who asks has it for a moment
            raise NapctlError(f"{directory}: another guard of the service watches already")
        yield
    finally:
        os.close(lock)


def is_on_watch(directory: Path) -> bool:
    """Whether some process is the guard of the service there."""
    try:
        lock = os.open(directory / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not taken(lock, shared=True)  # many may ask at a time
    finally:
        os.close(lock)
