"""One service for each state directory: a lock that the kernel takes from it however it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napctl.kernel.file_lock import lock_file, taken
from napctl.model.errors import BadInput, ChangedMeanwhile

__all__ = ["the_only_one"]


FILE = "service.lock"


@contextmanager
def the_only_one(directory: Path) -> Iterator[None]:
    """Raises ChangedMeanwhile if there is another, BadInput for a directory that cannot be written."""
    with suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock = lock_file(directory / FILE)
    except OSError as error:
        raise BadInput(f"{directory}: {error.strerror}; be root or set NAPCTL_STATE_DIR") from None
    try:
        if not taken(lock):
            raise ChangedMeanwhile(f"{directory}: another napctl daemon runs already")
        yield
    finally:
        os.close(lock)
