"""Time in NET_RX softirqs, and on top of chosen processes: loads softirq_time.bpf.o, reads its counters from memory."""

import ctypes
import mmap
import struct
from collections.abc import Collection
from typing import NamedTuple, Self

from napctl.probe.libbpf import BpfObject
from napctl.probe.loading import kernel_btf, loaded, net_rx_softirq
from napctl.probe.napi import online_cpus

__all__ = ["NetRxTime", "SoftirqTimeProbe"]


CPUS = 8192
PIDS = 4 << 20


class _Cpu(ctypes.Structure):
    """struct cpu of softirq_time.bpf.c."""

    _fields_ = (("ns", ctypes.c_uint64), ("on_chosen_ns", ctypes.c_uint64), ("_private", ctypes.c_uint64 * 6))


class _Times(ctypes.Structure):
    """struct times, the program's one global variable."""

    _fields_ = (("cpus", _Cpu * CPUS), ("chosen", ctypes.c_uint64 * (PIDS // 64)))


class NetRxTime(NamedTuple):
    """In NET_RX softirqs of all CPUs since load(), ns, with interrupts that came amid them."""

    ns: int
    on_chosen_ns: int
    """Of this, on top of a chosen process."""


class SoftirqTimeProbe:
    """The loaded and attached program; a context manager. Counting begins with load(), from zero."""

    def __init__(self, program: BpfObject, memory: mmap.mmap) -> None:
        self._program = program
        self._memory = memory
        self._times = _Times.from_buffer(memory)

    @classmethod
    def load(cls, pids: Collection[int]) -> Self:
        """With these processes chosen, by their pids in the initial PID namespace. Raises ProbeUnavailable."""

        def choose(memory: mmap.mmap) -> None:
            times = _Times.from_buffer(memory)
            for pid in pids:
                times.chosen[pid // 64] |= 1 << pid % 64

        constants = struct.pack("=I", net_rx_softirq(kernel_btf()))
        return cls(*loaded("softirq_time", constants, ctypes.sizeof(_Times), prepare=choose))

    def choose(self, pid: int) -> None:
        """That process as well from now on."""
        self._times.chosen[pid // 64] |= 1 << pid % 64

    def drop(self, pid: int) -> None:
        """That process no more: when it has ended its pid may be another's."""
        self._times.chosen[pid // 64] &= ~(1 << pid % 64)

    def read(self) -> NetRxTime:
        """The times since load(), from memory. A softirq counts when it ends."""
        cpus = [self._times.cpus[cpu] for cpu in online_cpus()]
        return NetRxTime(sum(cpu.ns for cpu in cpus), sum(cpu.on_chosen_ns for cpu in cpus))

    def prog_fds(self) -> dict[str, int]:
        """File descriptors of the BPF programs by name, to look up their cost; they belong to the probe."""
        return self._program.program_fds()

    def close(self) -> None:
        """Detach and free; may be called again. read() cannot be called any more."""
        self._program.close()
        if not self._memory.closed:
            del self._times
            self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
