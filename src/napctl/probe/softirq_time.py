"""Time in NET_RX softirqs, and on top of chosen processes: loads softirq_time.bpf.o, reads its counters from memory."""

import ctypes
import mmap
import struct
from collections.abc import Collection
from typing import NamedTuple, Self

from napctl.probe.libbpf import BpfObject
from napctl.probe.loading import LoadedProgram, kernel_btf, loaded, net_rx_softirq
from napctl.probe.napi import possible_cpus

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


class SoftirqTimeProbe(LoadedProgram):
    """The loaded and attached program; a context manager. Counting begins with load(), from zero."""

    VIEWS = ("_times",)

    def __init__(self, program: BpfObject, memory: mmap.mmap) -> None:
        super().__init__(program, memory)
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
        cpus = [self._times.cpus[cpu] for cpu in possible_cpus()]
        return NetRxTime(sum(cpu.ns for cpu in cpus), sum(cpu.on_chosen_ns for cpu in cpus))
