"""One service for each state directory: a lock that the kernel takes from it however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napctl.model.errors import BadInput, ChangedMeanwhile

__all__ = ["the_only_one"]


FILE = "service.lock"


@contextmanager
def the_only_one(directory: Path) -> Iterator[None]:
    """Raises ChangedMeanwhile if there is another, BadInput for a directory that cannot be written."""
    with suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BadInput(f"{directory}: {error.strerror}; be root or set NAPCTL_STATE_DIR") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ChangedMeanwhile(f"{directory}: another napctl daemon runs already") from None
        yield
    finally:
        os.close(lock)
