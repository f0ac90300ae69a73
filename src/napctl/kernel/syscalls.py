"""System calls that Python's standard library lacks or has only in newer versions."""

import ctypes
import os
import signal

__all__ = ["adopt_orphans", "end_with_parent", "open_beneath", "open_in_root", "pidfd_getfd"]


_libc = ctypes.CDLL(None, use_errno=True)
OPENAT2, PIDFD_GETFD = 437, 438  # the same numbers on every architecture
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = (
    1,
    2,
    4,
    8,
    16,
)  # include/uapi/linux/openat2.h
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A copy of another process's file descriptor (pidfd_getfd(2)).

    Needs ptrace-attach rights over the process, and stops nothing. Raises OSError: EPERM without the rights, EBADF if
    the process has no such descriptor, ESRCH if it is gone.
    """
    copy: int = _libc.syscall(PIDFD_GETFD, pidfd, fd, 0)
    if copy < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return copy


def open_beneath(directory: int, path: str, flags: int) -> int:
    """A file below a directory that is open, with no symbolic link and no mount on the way to it (openat2(2)).

    Raises OSError: ELOOP for a link, EXDEV for a mount, and for a way out of the directory.
    """
    return _open(directory, path, flags, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)


def open_in_root(directory: int, path: str, flags: int) -> int:
    """A file as a process sees it whose root directory is open: symbolic links lead to what is below (openat2(2)).

    Raises OSError.
    """
    return _open(directory, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def _open(directory: int, path: str, flags: int, resolve: int) -> int:
    how = (ctypes.c_uint64 * 3)(flags, 0, resolve)
    file: int = _libc.syscall(OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if file < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return file


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends (prctl(2)); execve(2) keeps that. Raises OSError."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def end_with_parent() -> None:
    """Receive SIGTERM when the thread that is the parent ends (prctl(2)); execve(2) keeps that. Raises OSError."""
    if _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
