"""Device attributes of a network namespace, through a sysfs of its own that is mounted nowhere (fsopen(2), Linux 5.2).

A sysfs shows the devices of the namespace in which it was mounted, so the machine's /sys does not show the lab's.
A detached mount needs no mount namespace and no clean-up: it goes with its descriptor.
"""

import ctypes
import os
from typing import Self

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import NapctlError, NotPermitted, Unsupported

__all__ = ["DeviceAttributes"]


# The same numbers on every architecture (include/uapi/asm-generic/unistd.h, include/uapi/linux/mount.h).
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
CLOEXEC, FSCONFIG_CMD_CREATE = 1, 6

_libc = ctypes.CDLL(None, use_errno=True)


class DeviceAttributes:
    """/sys/class/net of one network namespace. Use as a context manager. Raises NotPermitted, NapctlError."""

    def __init__(self, namespace: NetworkNamespace):
        with namespace.entered():
            context = _call(FSOPEN, b"sysfs", CLOEXEC)
            try:
                _call(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
                self._root = _call(FSMOUNT, context, CLOEXEC, 0)
            finally:
                os.close(context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._root)

    def read(self, device: str, attribute: str) -> str | None:
        """Its value; None if there is no such device or attribute, or it cannot be read."""
        try:
            fd = self._open(device, attribute, os.O_RDONLY)
        except OSError:
            return None
        try:
            return os.read(fd, 4096).decode(errors="replace").strip()
        except OSError:
            return None
        finally:
            os.close(fd)

    def write(self, device: str, attribute: str, value: str) -> None:
        """Set it. Raises Unsupported if there is no such attribute, NapctlError if the kernel refuses."""
        try:
            fd = self._open(device, attribute, os.O_WRONLY)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except FileNotFoundError:
            raise Unsupported(f"{device}: this kernel has no attribute '{attribute}' in sysfs") from None
        except OSError as error:
            raise NapctlError(f"{device}: writing {value} to '{attribute}': {error.strerror}") from None

    def _open(self, device: str, attribute: str, mode: int) -> int:
        return os.open(f"class/net/{device}/{attribute}", mode | os.O_CLOEXEC, dir_fd=self._root)


def _call(number: int, *arguments: int | bytes | None) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result >= 0:
        return result
    error = ctypes.get_errno()
    if error == 1:  # EPERM
        raise NotPermitted("mounting a sysfs of its own needs CAP_SYS_ADMIN")
    raise NapctlError(f"mounting a sysfs: {os.strerror(error)}")
