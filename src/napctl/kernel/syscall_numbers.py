"""Numbers of the system calls in which a thread waits for packets, by architecture."""

import os
from collections.abc import Mapping

__all__ = ["syscall_numbers"]


_X86_64 = {
    "read": 0,
    "poll": 7,
    "select": 23,
    "recvfrom": 45,
    "recvmsg": 47,
    "epoll_wait": 232,
    "pselect6": 270,
    "ppoll": 271,
    "epoll_pwait": 281,
    "recvmmsg": 299,
    "io_uring_enter": 426,
    "epoll_pwait2": 441,
}
"""arch/x86/entry/syscalls/syscall_64.tbl"""
_AARCH64 = {
    "epoll_pwait": 22,
    "read": 63,
    "pselect6": 72,
    "ppoll": 73,
    "recvfrom": 207,
    "recvmsg": 212,
    "recvmmsg": 243,
    "io_uring_enter": 426,
    "epoll_pwait2": 441,
}
"""include/uapi/asm-generic/unistd.h. Without epoll_wait, poll and select, which the C library makes of others."""
_NUMBERS: Mapping[str, Mapping[str, int]] = {"x86_64": _X86_64, "aarch64": _AARCH64}


def syscall_numbers(machine: str | None = None) -> Mapping[str, int]:
    """Number by name, of an architecture as uname(2) names it (by default this one); empty if it is not known here.

    A call that the architecture lacks is missing.
    """
    return _NUMBERS.get(machine or os.uname().machine, {})
