"""Time in NET_RX softirqs by whose it is: loads softirq_parts.bpf.o, reads its counters from memory."""

import ctypes
import mmap
import struct
from collections.abc import Collection, Sequence
from typing import NamedTuple, Self

from napctl.probe.libbpf import BpfObject
from napctl.probe.loading import LoadedProgram, kernel_btf, loaded, net_rx_softirq
from napctl.probe.napi import possible_cpus

__all__ = ["MOST_PARTS", "PartTime", "SoftirqPartsProbe"]


CPUS = 8192
PIDS = 4 << 20
NAPI_IDS = 65536
MOST_PARTS = 3
"""Numbered from 1; 0 is nobody's."""


class _Cpu(ctypes.Structure):
    """struct cpu of softirq_parts.bpf.c."""

    _fields_ = (
        ("_private", ctypes.c_uint64 * 2),
        ("polled_ns", ctypes.c_uint64 * (MOST_PARTS + 1)),
        ("on_ns", ctypes.c_uint64 * (MOST_PARTS + 1)),
        ("_padding", ctypes.c_uint64 * 6),
    )


class _Parts(ctypes.Structure):
    """struct parts, the program's one global variable."""

    _fields_ = (
        ("cpus", _Cpu * CPUS),
        ("of_napi", ctypes.c_uint8 * NAPI_IDS),
        ("of_pid", ctypes.c_uint8 * PIDS),
    )


class PartTime(NamedTuple):
    """Of one part, in NET_RX softirqs of all CPUs since load(), ns."""

    polled_ns: int
    """In polls of its NAPI instances."""
    on_ns: int
    """On top of its processes, whatever was polled there."""


class SoftirqPartsProbe(LoadedProgram):
    """The loaded and attached program; a context manager. Counting begins with load(), from zero."""

    VIEWS = ("_parts",)

    def __init__(self, program: BpfObject, memory: mmap.mmap) -> None:
        super().__init__(program, memory)
        self._parts = _Parts.from_buffer(memory)
        self._chosen: Sequence[tuple[Collection[int], Collection[int]]] = ()

    @classmethod
    def load(cls, parts: Sequence[tuple[Collection[int], Collection[int]]]) -> Self:
        """Of these parts, as of choose(). Raises ProbeUnavailable."""
        constants = struct.pack("=I", net_rx_softirq(kernel_btf()))
        probe = cls(*loaded("softirq_parts", constants, ctypes.sizeof(_Parts)))
        probe.choose(parts)
        return probe

    def choose(self, parts: Sequence[tuple[Collection[int], Collection[int]]]) -> None:
        """These parts from now on: NAPI ids, and pids in the initial PID namespace. The counts of the first one go on
        from those of the first one before, and so on: what was read before can only be compared by who knows both."""
        assert len(parts) <= MOST_PARTS
        for place, (napi_ids, pids) in [*((0, each) for each in self._chosen), *enumerate(parts, 1)]:
            for napi_id in napi_ids:
                self._parts.of_napi[napi_id % NAPI_IDS] = place
            for pid in pids:
                self._parts.of_pid[pid] = place
        self._chosen = [(tuple(napi_ids), tuple(pids)) for napi_ids, pids in parts]

    def read(self) -> tuple[PartTime, ...]:
        """Of each part in its order, from memory. A CPU that goes offline takes nothing of it along."""
        cpus = [self._parts.cpus[cpu] for cpu in possible_cpus()]
        return tuple(
            PartTime(sum(cpu.polled_ns[place] for cpu in cpus), sum(cpu.on_ns[place] for cpu in cpus))
            for place in range(1, len(self._chosen) + 1)
        )
