"""What the rings of another process's AF_XDP socket have carried, and what found no place in them
(Documentation/networking/af_xdp.rst).

The kernel counts in the ring itself what it has put there and what it has taken. The rings are in the memory of the
process, and there they are read: a socket that is bound lets nobody map them any more (xsk_mmap() in net/xdp/xsk.c).
"""

import ctypes
import os
import struct
import sys
from dataclasses import dataclass

from napctl.kernel.held_files import file_mappings
from napctl.kernel.processes import PROC, Handle

__all__ = ["RingCounts", "RingLosses", "is_zero_copy", "ring_counts", "ring_losses"]


SOL_XDP, XDP_MMAP_OFFSETS, XDP_STATISTICS, XDP_OPTIONS = 283, 1, 7, 8
OFFSETS = struct.Struct("=16Q")
"""struct xdp_mmap_offsets: producer, consumer, descriptors, flags of the rings RX, TX, fill and completion."""
STATISTICS = struct.Struct("=6Q")
"""struct xdp_statistics: dropped, invalid RX and TX descriptors; since Linux 5.9 (commit 8aa5a33578e9) RX ring full,
fill ring empty, TX ring empty."""
ZERO_COPY = 1 << 0
"""XDP_OPTIONS_ZEROCOPY (Linux 5.3, commit 2640d3c81234)."""
RX_RING, TX_RING = 0, 0x80000000
"""XDP_PGOFF_*: where each begins in the mapping's file."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class RingCounts:
    """Since the socket was made, modulo 2^32; None: it has no such ring mapped."""

    received: int | None
    """That the kernel has put into its RX ring."""
    sent: int | None
    """That the kernel has taken from its TX ring."""


@dataclass(frozen=True)
class RingLosses:
    """Since the socket was made."""

    lost: int
    """Packets that were for it and found no place: its RX ring was full, or nothing was in its fill ring."""
    starved: int
    """How often its fill ring was found empty. With zero copy the NIC drops then, and counts that itself, if at all."""
    zero_copy: bool | None
    """None: not told."""


def ring_counts(handle: Handle, fd: int, inode: int) -> RingCounts:
    """Of one socket. Raises OSError: no rights, closed, gone; or no AF_XDP socket."""
    with handle.copy_of(fd) as copy:
        rx_producer, _, _, _, _, tx_consumer, *_ = _offsets(copy)
    rings = file_mappings(handle.pid, inode)
    memory = os.open(PROC / str(handle.pid) / "mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return RingCounts(
            received=_counter(memory, rings, RX_RING, rx_producer), sent=_counter(memory, rings, TX_RING, tx_consumer)
        )
    finally:
        os.close(memory)


def ring_losses(fd: int) -> RingLosses:
    """Of a socket of ours, or a copy of one. Raises OSError: it is none of AF_XDP."""
    dropped, _, _, full, empty, _ = STATISTICS.unpack(_option(fd, XDP_STATISTICS, STATISTICS.size))
    return RingLosses(lost=dropped + full, starved=empty, zero_copy=is_zero_copy(fd))


def is_zero_copy(fd: int) -> bool | None:
    """Whether the NIC writes into the memory of that socket itself; None: this kernel does not tell (before 5.3)."""
    try:
        (flags,) = struct.unpack("=I", _option(fd, XDP_OPTIONS, 4))
    except OSError:
        return None
    return bool(flags & ZERO_COPY)


def _offsets(fd: int) -> tuple[int, ...]:
    return OFFSETS.unpack(_option(fd, XDP_MMAP_OFFSETS, OFFSETS.size))


def _option(fd: int, option: int, size: int) -> bytes:
    """Zeros where an older kernel tells less."""
    buffer, told = ctypes.create_string_buffer(size), ctypes.c_uint32(size)
    if _libc.getsockopt(fd, SOL_XDP, option, buffer, ctypes.byref(told)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw


def _counter(memory: int, rings: dict[int, tuple[int, int]], ring: int, offset: int) -> int | None:
    if ring not in rings or offset + 4 > rings[ring][1]:
        return None
    return int.from_bytes(os.pread(memory, 4, rings[ring][0] + offset), sys.byteorder)
