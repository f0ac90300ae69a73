"""How the threads of chosen processes wait: loads waits.bpf.o and reads its counters from mapped memory."""

import ctypes
import mmap
import os
from collections.abc import Collection, Iterator
from typing import Self

from napctl.kernel.syscall_numbers import syscall_numbers
from napctl.model.waits import Call, ThreadWaits
from napctl.probe.libbpf import BpfObject, LibbpfError
from napctl.probe.loading import LoadedProgram, ProbeUnavailable, loaded

__all__ = ["KINDS", "WaitProbe"]


PIDS = 4 << 20
NUMBERS = 512
ENTRIES = 2 * 8192
KINDS = {
    "epoll_wait": 1,
    "epoll_pwait": 1,
    "epoll_pwait2": 2,
    "poll": 3,
    "ppoll": 4,
    "select": 5,
    "pselect6": 5,
    "recvmsg": 6,
    "recvfrom": 7,
    "recvmmsg": 7,
    "read": 8,
    "io_uring_enter": 9,
}
"""enum kind of waits.bpf.c."""
CALLS: tuple[Call, ...] = ("epoll", "poll", "select", "recv", "io_uring")
"""enum call of waits.bpf.c, from 1."""


class _Entry(ctypes.Structure):
    """struct entry: one thread's calls of one kind on one descriptor."""

    _fields_ = (
        ("tgid", ctypes.c_uint32),
        ("calls", ctypes.c_uint64),
        ("nonblocking", ctypes.c_uint64),
        ("fruitful", ctypes.c_uint64),
        ("_padding", ctypes.c_char * 32),
    )


class _Waits(ctypes.Structure):
    """struct waits, the program's one global variable."""

    _fields_ = (
        ("wanted", ctypes.c_uint64 * (PIDS // 64)),
        ("keys", ctypes.c_uint64 * ENTRIES),
        ("entries", _Entry * ENTRIES),
        ("lost", ctypes.c_uint64),
        ("_padding", ctypes.c_char * 56),
    )


def _no_system_calls(error: LibbpfError) -> str:
    return f"this kernel does not let napctl see system calls: {error}"


class WaitProbe(LoadedProgram):
    """The loaded and attached program; a context manager. Counting begins with load(), from zero.

    While it is attached, every system call of the machine takes longer, whoever makes it. In a virtual machine that was
    0.16 µs, of which empty programs on the same two tracepoints take 0.14 µs.
    """

    VIEWS = ("_waits",)

    def __init__(self, program: BpfObject, memory: mmap.mmap) -> None:
        super().__init__(program, memory)
        self._waits = _Waits.from_buffer(memory)

    @classmethod
    def load(cls, pids: Collection[int]) -> Self:
        """For all threads of these processes, by their pids in the initial PID namespace. Raises ProbeUnavailable."""

        def want(memory: mmap.mmap) -> None:
            counters = _Waits.from_buffer(memory)
            for pid in pids:
                counters.wanted[pid // 64] |= 1 << pid % 64

        constants = _kinds(os.uname().machine)
        return cls(*loaded("waits", constants, ctypes.sizeof(_Waits), prepare=want, why=_no_system_calls))

    def add(self, pid: int) -> None:
        """Count that process's calls as well from now on; one that is counted already goes on."""
        self._waits.wanted[pid // 64] |= 1 << pid % 64

    def read(self) -> tuple[ThreadWaits, ...]:
        """The counts since load(), from memory, by process and thread; those that have ended keep theirs.

        What a thread is blocked in now the counts do not tell: `blocked_now` is False.
        """
        return tuple(sorted(self._entries(), key=lambda entry: (entry.pid, entry.tid, entry.call, entry.fd)))

    @property
    def lost(self) -> int:
        """Calls that found no free place in the table; 0 means that read() is complete."""
        return int(self._waits.lost)

    def _entries(self) -> Iterator[ThreadWaits]:
        for index, key in enumerate(self._waits.keys):
            if not key:
                continue
            entry = self._waits.entries[index]
            calls = entry.calls
            # A call with a timeout of 0 in the program's memory is counted as such before it has returned.
            if calls:
                yield ThreadWaits(
                    pid=entry.tgid,
                    tid=key >> 35,
                    call=CALLS[(key >> 32 & 7) - 1],
                    fd=ctypes.c_int32(key & 0xFFFFFFFF).value,
                    calls=calls,
                    nonblocking=min(entry.nonblocking, calls),
                    fruitful=min(entry.fruitful, calls),
                    blocked_now=False,
                )


def _kinds(machine: str) -> bytes:
    """The program's constant: what to make of each system call number."""
    numbers = syscall_numbers(machine)
    if not numbers:
        raise ProbeUnavailable(f"napctl does not know the numbers of {machine}'s system calls")
    table = bytearray(NUMBERS)
    for name, number in numbers.items():
        table[number] = KINDS[name]
    return bytes(table)
