"""How one device without NAPI instances hands its packets over: loads deliveries.bpf.o and reads its counters."""

import ctypes
import mmap
import struct
from typing import Self

from napctl.model.counts import Deliveries
from napctl.probe.libbpf import BpfObject, LibbpfError
from napctl.probe.loading import LoadedProgram, loaded
from napctl.probe.napi import possible_cpus

__all__ = ["PAUSE_NS", "DeliveryProbe"]


CPUS = 8192
PAUSE_NS = 1_000
"""Packets that follow each other faster are one run. A driver's loop takes some 0.1 µs from one to the next."""


class _Cpu(ctypes.Structure):
    """struct cpu of deliveries.bpf.c; the private part is what the program remembers between entry and exit."""

    _fields_ = (("packets", ctypes.c_uint64), ("runs", ctypes.c_uint64), ("_private", ctypes.c_uint64 * 6))


def _no_packets(error: LibbpfError) -> str:
    return f"this kernel does not let napctl see packets without NAPI: {error}"


class DeliveryProbe(LoadedProgram):
    """The loaded and attached program; a context manager. Counting begins with load(), from zero."""

    VIEWS = ("_cpus",)

    def __init__(self, program: BpfObject, memory: mmap.mmap) -> None:
        super().__init__(program, memory)
        self._cpus = (_Cpu * CPUS).from_buffer(memory)

    @classmethod
    def load(cls, netns: int, ifindex: int, *, pause_ns: int = PAUSE_NS) -> Self:
        """For one device of the network namespace with that inode number; packets with a pause below
        `pause_ns` are one run. Raises ProbeUnavailable."""
        constants = struct.pack("=IIQ", ifindex, netns, pause_ns)
        return cls(*loaded("deliveries", constants, ctypes.sizeof(_Cpu) * CPUS, why=_no_packets))

    def read(self) -> Deliveries:
        """The counts since load(), from memory."""
        counts = [self._cpus[cpu] for cpu in possible_cpus()]
        return Deliveries(packets=sum(cpu.packets for cpu in counts), runs=sum(cpu.runs for cpu in counts))
