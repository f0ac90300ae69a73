"""Device attributes of a network namespace, through a sysfs of its own that is mounted nowhere (fsopen(2), Linux 5.2).

A sysfs shows the devices of the namespace in which it was mounted, so the machine's /sys does not show the lab's.
A detached mount needs no mount namespace and no clean-up: it goes with its descriptor.
"""

import ctypes
import os

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import NapctlError, NotPermitted, Unsupported

# The same numbers on every architecture (include/uapi/asm-generic/unistd.h, include/uapi/linux/mount.h).
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
CLOEXEC, FSCONFIG_CMD_CREATE = 1, 6

_libc = ctypes.CDLL(None, use_errno=True)


def write_attribute(namespace: NetworkNamespace, device: str, attribute: str, value: str) -> None:
    """Write /sys/class/net/<device>/<attribute> of that namespace. Raises Unsupported, NotPermitted, NapctlError."""
    with namespace.entered():
        context = _call(FSOPEN, b"sysfs", CLOEXEC)
        try:
            _call(FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
            root = _call(FSMOUNT, context, CLOEXEC, 0)
        finally:
            os.close(context)
    try:
        fd = os.open(f"class/net/{device}/{attribute}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=root)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise Unsupported(f"{device}: this kernel has no attribute '{attribute}' in sysfs") from None
    except OSError as error:
        raise NapctlError(f"{device}: writing {value} to '{attribute}': {error.strerror}") from None
    finally:
        os.close(root)


def _call(number: int, *arguments: int | bytes | None) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result >= 0:
        return result
    error = ctypes.get_errno()
    if error == 1:  # EPERM
        raise NotPermitted("mounting a sysfs for the lab needs CAP_SYS_ADMIN")
    raise NapctlError(f"mounting a sysfs for the lab: {os.strerror(error)}")
