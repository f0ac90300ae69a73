"""System calls that Python's standard library lacks or has only in newer versions."""

import ctypes
import os
import signal

__all__ = ["adopt_orphans", "end_with_parent", "pidfd_getfd"]


_libc = ctypes.CDLL(None, use_errno=True)
PIDFD_GETFD = 438  # the same number on every architecture
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
