"""flock(2): a lock on an open file, which the kernel takes from a process however that ends."""

import fcntl
import os
import time
from pathlib import Path

__all__ = ["let_go", "lock_file", "taken"]

PAUSE_SECONDS = 0.01
"""Between two attempts: flock(2) itself waits for ever, or not at all."""


def lock_file(path: Path) -> int:
    """A descriptor of a file to lock, made if it is not there; never through a symbolic link. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def taken(descriptor: int, *, shared: bool = False, patience_seconds: float = 0.0) -> bool:
    """Whether the lock could be had within that time. It ends when the file is closed, or with the process."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(PAUSE_SECONDS)
        else:
            return True


def let_go(descriptor: int) -> None:
    """Let others have the lock; the file stays open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
