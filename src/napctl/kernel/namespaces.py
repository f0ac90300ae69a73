"""Network namespaces, held by file descriptors (network_namespaces(7), setns(2)).

A namespace lives as long as a process is in it, a descriptor or a bind mount refers to it, or a socket belongs to it.
One that is held only by descriptors is removed by the kernel when their process ends, however it ends.
"""

import ctypes
import errno
import fcntl
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from napctl.model.errors import BadInput, NapctlError, NotPermitted

__all__ = ["NAMED", "OWN_NET", "NetworkNamespace"]


CLONE_NEWNET = 0x40000000
SO_NETNS_COOKIE = 71
NS_GET_NSTYPE = 0xB703  # ioctl_nsfs(2)
HERE = Path("/proc/thread-self/ns/net")
OWN_NET = Path("/proc/thread-self/net")
"""What the calling thread's namespace shows, where /proc/net would be that of the process's first thread."""
NAMED = Path("/run/netns")
"""Where iproute2 keeps names: bind mounts of namespaces."""

_libc = ctypes.CDLL(None, use_errno=True)  # os.setns and os.unshare are there from Python 3.12 only


class NetworkNamespace:
    """One network namespace, held open by `fd` until `close()`. Use as a context manager."""

    def __init__(self, fd: int):
        self.fd = fd

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The namespace behind a path, such as /proc/1/ns/net. Raises BadInput, NotPermitted."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            raise NotPermitted(f"{path}: reading another user's network namespace needs CAP_SYS_PTRACE") from None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            raise BadInput(f"{path}: no network namespace there: {error.strerror}") from None
        if not _is_network(fd):
            os.close(fd)
            raise BadInput(f"{path}: that is no network namespace")
        return cls(fd)

    @classmethod
    def current(cls) -> Self:
        """The calling thread's."""
        return cls.open(HERE)

    @classmethod
    def of_process(cls, pid: int) -> Self:
        """That of a process. Raises BadInput if it is gone, NotPermitted."""
        return cls.open(f"/proc/{pid}/ns/net")

    @classmethod
    def named(cls, name: str) -> Self:
        """One that `ip netns` lists. Raises BadInput if there is none."""
        return cls.open(NAMED / name)

    @classmethod
    def create(cls) -> Self:
        """A new, empty namespace that nothing but the returned object holds. Raises NotPermitted, NapctlError."""
        outcome: list[Self | BaseException] = []

        def make() -> None:
            try:
                if _libc.unshare(CLONE_NEWNET):
                    raise _failure("creating a network namespace")
                outcome.append(cls.current())
            except NapctlError as error:
                outcome.append(error)

        thread = threading.Thread(target=make)  # unshare moves the calling thread: one that ends right after
        thread.start()
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    @classmethod
    def find(cls, inode: int) -> Self | None:
        """The namespace with that inode number, if a process, a name or a process's descriptor shows it; else None."""
        for path in _visible():
            with suppress(OSError, NapctlError):  # gone meanwhile, or not ours to see
                if _shows(path, inode):
                    found = cls.open(path)
                    if found.inode == inode:
                        return found
                    found.close()
        return None

    @classmethod
    def each(cls) -> Iterator[Self]:
        """All that find() would find, each once, and closed when the next one is asked for."""
        seen: set[int] = set()
        for path in _visible():
            found: Self | None = None
            with suppress(OSError, NapctlError, ValueError):  # gone meanwhile, not ours to see, or no namespace
                if path.startswith("/proc/") and _number(os.readlink(path)) in seen:  # noqa: PTH115 - as _shows()
                    continue
                found = cls.open(path)
            if found is not None:
                with found:
                    if found.inode not in seen:
                        seen.add(found.inode)
                        yield found

    @property
    def inode(self) -> int:
        """Its number, as `lsns` prints it and the probe reports it; unique while the namespace lives, and no longer."""
        return os.fstat(self.fd).st_ino

    @property
    def cookie(self) -> int:
        """Its other number: no other namespace gets it until reboot; 0 before Linux 5.14. Raises as entered()."""
        with self.entered(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inside:
            try:
                return int.from_bytes(inside.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
            except OSError:
                return 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread, and children that it starts, are in this namespace. Raises NotPermitted, NapctlError."""
        with NetworkNamespace.current() as before:
            if before.inode == self.inode:
                yield  # there already: needs no capability
                return
            _set(self.fd)
            try:
                yield
            finally:
                _set(before.fd)

    def close(self) -> None:
        """Let it go. Closing twice is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _is_network(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:  # ENOTTY: no namespace at all
        return False


def _set(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        raise _failure("entering a network namespace")


def _failure(doing: str) -> NapctlError:
    number = ctypes.get_errno()
    if number == 1:  # EPERM
        return NotPermitted(f"{doing} needs CAP_SYS_ADMIN")
    return NapctlError(f"{doing}: {os.strerror(number)}")


def _visible() -> Iterator[str]:
    """Paths that may lead to a namespace, the cheap ones first."""
    pids = [entry for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - many processes
    yield from (f"/proc/{pid}/ns/net" for pid in pids)
    with suppress(OSError), os.scandir(NAMED) as entries:
        yield from (entry.path for entry in entries)
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            yield from (entry.path for entry in entries)


def _number(link: str) -> int:
    """Raises ValueError if it leads to something else."""
    return int(link.removeprefix("net:[").removesuffix("]"))


def _shows(path: str, inode: int) -> bool:
    if path.startswith("/proc/"):  # asking the link's text opens nothing: a descriptor may be anything
        return os.readlink(path) == f"net:[{inode}]"  # noqa: PTH115 - thousands of descriptors
    return os.stat(path).st_ino == inode and os.stat(path).st_dev == os.stat(HERE).st_dev  # noqa: PTH116
