"""What a thread is blocked in at this moment, from /proc/PID/task/TID/syscall (proc_pid_syscall(5))."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from napctl.kernel.processes import PROC, SOCKET_LINK
from napctl.kernel.syscall_numbers import syscall_numbers
from napctl.model.waits import Call

__all__ = ["Waiting", "current_wait", "parsed"]


_REGISTERED_RING = 16
"""IORING_ENTER_REGISTERED_RING of include/uapi/linux/io_uring.h: the first argument is an index, not a descriptor."""
_CALLS: Mapping[str, Call] = {
    "epoll_wait": "epoll",
    "epoll_pwait": "epoll",
    "epoll_pwait2": "epoll",
    "poll": "poll",
    "ppoll": "poll",
    "select": "select",
    "pselect6": "select",
    "recvfrom": "recv",
    "recvmsg": "recv",
    "recvmmsg": "recv",
    "read": "recv",
    "io_uring_enter": "io_uring",
}
_BLOCKED = re.compile(r"\d+( 0x[0-9a-f]{1,16}){8}", re.ASCII)
"""Number, six arguments, stack pointer, program counter (proc_pid_syscall() in fs/proc/base.c)."""


class Waiting(NamedTuple):
    """The call a thread is blocked in; its fields are those of ThreadWaits."""

    call: Call
    fd: int
    timeout_ms: int | None


def current_wait(pid: int, tid: int) -> Waiting | None:
    """The call in which a thread waits; None if it runs, is gone, or is in another call. Raises PermissionError without
    ptrace-attach rights."""
    try:
        line = (PROC / str(pid) / "task" / str(tid) / "syscall").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = parsed(line, syscall_numbers())
    if found is None:
        return None
    name, wait = found
    return wait if name != "read" or _is_socket(pid, wait.fd) else None


def parsed(line: str, numbers: Mapping[str, int]) -> tuple[str, Waiting] | None:
    """The name of the system call in such a line, and what it tells; None if it is none that waits for packets.

    "running", or "-1 …" outside of a system call, are none either. A read is told whatever it reads from.
    """
    line = line.strip()
    if not _BLOCKED.fullmatch(line):
        return None
    number, *values = line.split()
    name = next((name for name, known in numbers.items() if known == int(number)), None)
    a1, a2, a3, a4, a5, _, stack, _ = (int(value, 16) for value in values)
    # A 32-bit program has its stack below 4 GiB, and numbers of its own: its waitpid is x86-64's poll.
    if name is None or stack < 1 << 32:
        return None
    call = _CALLS[name]
    if (call == "poll" and not _u32(a2)) or (call == "select" and not _u32(a1)):
        return None  # for no descriptor: a sleep
    has_fd = call in ("epoll", "recv") or (call == "io_uring" and not a4 & _REGISTERED_RING)
    return name, Waiting(
        call=call,
        fd=_int(a1) if has_fd else -1,
        timeout_ms=_timeout_ms(name, a3=a3, a4=a4, a5=a5),
    )


def _timeout_ms(name: str, *, a3: int, a4: int, a5: int) -> int | None:
    """None where it lies in the program's memory, or there is none in the call."""
    match name:
        case "epoll_wait" | "epoll_pwait":
            return max(_int(a4), -1)
        case "poll":
            return max(_int(a3), -1)
        case "epoll_pwait2":
            return None if a4 else -1
        case "ppoll":
            return None if a3 else -1
        case "select" | "pselect6":
            return None if a5 else -1
        case _:
            return None


def _u32(register: int) -> int:
    return register & 0xFFFFFFFF


def _int(register: int) -> int:
    """What the kernel sees of a register where it expects an int."""
    value = _u32(register)
    return value - (1 << 32) if value >> 31 else value


def _is_socket(pid: int, fd: int) -> bool:
    try:
        link = (PROC / str(pid) / "fd" / str(fd)).readlink()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return str(link).startswith(SOCKET_LINK)
