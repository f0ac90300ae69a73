"""Storm control's program: loads storm.bpf.o, and reads and writes its maps, also of one that another napctl attached.

The program stays attached when napctl ends, so its maps are found again by the program's id.
"""

import ctypes
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Self

from napctl.kernel import bpf
from napctl.model.storm import BY_REASON, StormCounts, StormLimits, StormTally
from napctl.probe.libbpf import BpfObject
from napctl.probe.loading import explained
from napctl.probe.napi import possible_cpus

__all__ = ["PROGRAM", "StormMaps", "StormProgram"]


PROGRAM = "storm_control"
"""Its name, as the kernel tells it."""
MOST_ADDRESSES = 4096
FIRST = bytes(4)
"""The one key of an array with one entry."""
_u32, _u64 = ctypes.c_uint32, ctypes.c_uint64
BROADCAST, MULTICAST, NO_LISTENER = (1 << BY_REASON.index(name) for name in ("broadcast", "multicast", "no listener"))


class _Limits(ctypes.Structure):
    """struct limits of storm.bpf.c."""

    _fields_ = (("reasons", _u32), ("burst", _u32), ("rate", _u64))


class _Tally(ctypes.Structure):
    """struct tally."""

    _fields_ = (("passed_packets", _u64), ("passed_bytes", _u64), ("dropped_packets", _u64), ("dropped_bytes", _u64))


class _Cpu(ctypes.Structure):
    """struct cpu; the buckets are the program's own."""

    _fields_ = (("tallies", _Tally * len(BY_REASON)), ("_buckets", _u64 * (2 * len(BY_REASON))))


class StormProgram:
    """The loaded program; a context manager. It lives on while it is attached to a device."""

    def __init__(self, program: BpfObject) -> None:
        self._program = program
        self.fd = program.program_fds()[PROGRAM]
        info = bpf.program_info(self.fd)
        self.number = info.number

    @classmethod
    def load(cls, mac: bytes) -> Self:
        """For a device with that MAC address; everything passes. Raises ProbeUnavailable."""
        image = Path(__file__).with_name("storm.bpf.o").read_bytes()

        def load() -> BpfObject:
            program = BpfObject.open(image, "napctl")
            try:
                program.set_constants(mac.ljust(8, b"\0"))
                program.load()
            except BaseException:
                program.close()
                raise
            return program

        return cls(explained(load))

    def close(self) -> None:
        """Let it go; may be called again."""
        self._program.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class StormMaps:
    """The maps of a storm control, by descriptors. All methods raise OSError."""

    def __init__(self, limits: int, cpus: int, addresses: int) -> None:
        self._limits, self._cpus, self._addresses = limits, cpus, addresses

    @classmethod
    @contextmanager
    def of(cls, number: int) -> Iterator[Self | None]:
        """Of the program with that id; None if it is gone, or another program. Raises OSError."""
        with ExitStack() as stack:
            fd = stack.enter_context(bpf.program(number))
            if fd is None:
                yield None
                return
            info = bpf.program_info(fd)
            names = ("storm_limits", "storm_cpus", "storm_addresses")
            fds = [stack.enter_context(bpf.map_called(name, info)) for name in names]
            if info.name != PROGRAM or None in fds:
                yield None
                return
            yield cls(*(fd for fd in fds if fd is not None))

    def limits(self) -> StormLimits:
        """In force now."""
        found = _Limits.from_buffer_copy(bpf.look_up(self._limits, FIRST, ctypes.sizeof(_Limits)) or b"")
        return StormLimits(
            broadcast=bool(found.reasons & BROADCAST),
            multicast=bool(found.reasons & MULTICAST),
            no_listener=bool(found.reasons & NO_LISTENER),
            packets_per_second=found.rate,
            burst_packets=found.burst,
        )

    def set_limits(self, wanted: StormLimits) -> None:
        """From the next packet on."""
        reasons = BROADCAST * wanted.broadcast | MULTICAST * wanted.multicast | NO_LISTENER * wanted.no_listener
        bpf.update(self._limits, FIRST, bytes(_Limits(reasons, wanted.burst_packets, wanted.packets_per_second)))

    def counts(self) -> StormCounts:
        """Since it was loaded."""
        size = ctypes.sizeof(_Cpu)
        cpus = len(possible_cpus())
        image = bpf.look_up(self._cpus, FIRST, size * cpus) or b""
        found = [_Cpu.from_buffer_copy(image, size * cpu) for cpu in range(cpus)]
        names = StormTally.__struct_fields__
        return StormCounts(
            by_reason={
                reason: StormTally(**{name: sum(getattr(cpu.tallies[place], name) for cpu in found) for name in names})
                for place, reason in enumerate(BY_REASON)
            }
        )

    def set_addresses(self, wanted: Collection[str]) -> None:
        """Which addresses are this host's own. More than MOST_ADDRESSES are not kept: packets to the rest pass."""
        packed = {_packed(each) for each in sorted(wanted)[:MOST_ADDRESSES]}
        present = set(bpf.keys(self._addresses, 16))
        for each in present - packed:
            bpf.delete(self._addresses, each)
        for each in packed - present:
            bpf.update(self._addresses, each, b"\1")


def _packed(address: str) -> bytes:
    found: IPv4Address | IPv6Address = ip_address(address)
    return bytes(10) + b"\xff\xff" + found.packed if found.version == 4 else found.packed
