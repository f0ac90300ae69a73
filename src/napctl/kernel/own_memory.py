"""Memory of this process, for one that runs for months (mallopt(3))."""

import ctypes
from contextlib import suppress

__all__ = ["give_back_what_is_free"]


_libc = ctypes.CDLL(None)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGE_BYTES = 1 << 20


def give_back_what_is_free() -> None:
    """From now on, to the kernel; to be called before there are threads.

    Left alone, glibc keeps up to twice the largest block that it ever gave back, which here is the kernel's types of
    5 MB, and a heap of its own for each thread.
    """
    with suppress(AttributeError):  # another libc
        _libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        _libc.mallopt(M_TRIM_THRESHOLD, LARGE_BYTES)
        _libc.mallopt(M_ARENA_MAX, 1)
