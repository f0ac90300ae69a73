"""Which program a process runs, and how it was called (proc(5))."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass

from napctl.kernel.processes import PROC

__all__ = ["Program", "fingerprint", "program"]


GO_NOTE = b"\x04\x00\x00\x00Go\x00\x00"
"""Type and name of the ELF note in which the Go linker keeps its build id (cmd/internal/buildid in Go's sources)."""
HEAD = 8192
"""Notes stand near the beginning of the file."""


@dataclass(frozen=True)
class Program:
    """`name`: the file's; empty where it cannot be read. `go`: it was linked by Go."""

    name: str = ""
    arguments: tuple[str, ...] = ()
    go: bool = False


def program(pid: int) -> Program:
    """Of a process; empty facts where they cannot be read."""
    try:
        arguments = tuple((PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
        name = (PROC / str(pid) / "exe").readlink().name.removesuffix(" (deleted)")
        fd = os.open(PROC / str(pid) / "exe", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Program()
    try:
        return Program(name, arguments, go=GO_NOTE in os.read(fd, HEAD))
    except OSError:
        return Program(name, arguments)
    finally:
        os.close(fd)


def fingerprint(pid: int, besides: str) -> str:
    """Of its program, its arguments, this kernel, and what is given `besides`: another one is another program.

    Arguments may be secret, and the program's file large: neither is kept.
    """
    found = hashlib.sha256(repr(program(pid).arguments).encode())
    with suppress(OSError):
        there = (PROC / str(pid) / "exe").stat()
        found.update(repr((there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns)).encode())
    kernel = os.uname()
    found.update(f"{kernel.release} {kernel.version} {besides}".encode())
    return found.hexdigest()[:32]
