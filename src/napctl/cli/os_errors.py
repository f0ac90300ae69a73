"""What the system refuses, told apart: output that cannot be written from all else, and each by what it is."""

import errno
import io
import os
import resource
import select
import sys
from typing import Any, TextIO

from napctl.model.errors import NapctlError, NotPermitted

__all__ = ["OutputFailed", "exit_status", "in_words", "silence", "tell_output_apart", "text_stream"]


class OutputFailed(OSError):
    """Standard output or standard error cannot be written: a full disk, a pipe that nobody reads any more."""


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        """All of it: a signal, or a disk that becomes full, lets the system take a part."""
        left = memoryview(data).cast("B")
        whole = len(left)
        try:
            while left:
                written = super().write(left)
                if written is None:  # somebody else made it non-blocking, and it is full
                    select.select((), (self,), ())
                left = left[written or 0 :]
        except OSError as error:
            raise OutputFailed(error.errno, error.strerror) from None
        return whole


def tell_output_apart() -> None:
    """From now on what cannot be written raises OutputFailed; what was closed (>&-) is as /dev/null.

    A terminal that is not UTF-8 shows "?" for a dash.
    """
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:  # else a file that napctl opens would get what it prints
        pass
    os.close(lowest)
    sys.stdout = text_stream(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = text_stream(_Output(2, "w", closefd=False), sys.stderr)


def silence() -> None:
    """What is still unwritten goes nowhere, or the interpreter complains at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def text_stream(raw: Any, like: TextIO | None) -> TextIO:
    """For text into a stream of bytes, in the encoding of `like`; that is None if it was closed."""
    # An interruption between a write and its end would leave in a buffer what has been written: it would be said twice.
    return io.TextIOWrapper(
        raw,
        write_through=True,
        encoding=like.encoding if like else "utf-8",
        errors="replace",
        line_buffering=True,
    )


def in_words(error: OSError) -> str:
    """One line: on which object, why, what to do."""
    why = error.strerror or str(error)
    if error.errno == errno.EMFILE:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        why = f"too many open files: this process may have {most} (raise it: ulimit -n)"
    elif error.errno == errno.ENFILE:
        why = "too many open files in the whole system (raise it: sysctl fs.file-max)"
    elif error.errno == errno.ENOBUFS:
        why = "the kernel had no buffer left and dropped what it was to tell (ENOBUFS); try again"
    elif error.errno in (errno.EPERM, errno.EACCES):
        what = "run it as root" if os.geteuid() else "a capability is missing, or a security module refuses"
        why = f"not permitted ({why}): {what}"
    elif not error.filename:
        why = f"the kernel refused: {why} ({errno.errorcode.get(error.errno or 0, 'unknown')})"
    return f"{os.fsdecode(error.filename)}: {why}" if isinstance(error.filename, str | bytes) else why


def exit_status(error: OSError) -> int:
    """As the command line promises it."""
    kind = NotPermitted if error.errno in (errno.EPERM, errno.EACCES) else NapctlError
    return kind.exit_status
