"""How many packets the rings of another process's AF_XDP socket have carried (Documentation/networking/af_xdp.rst).

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

__all__ = ["RingCounts", "ring_counts"]


SOL_XDP, XDP_MMAP_OFFSETS = 283, 1
OFFSETS = struct.Struct("=16Q")
"""struct xdp_mmap_offsets: producer, consumer, descriptors, flags of the rings RX, TX, fill and completion."""
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


def _offsets(fd: int) -> tuple[int, ...]:
    buffer, size = ctypes.create_string_buffer(OFFSETS.size), ctypes.c_uint32(OFFSETS.size)
    if _libc.getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, buffer, ctypes.byref(size)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return OFFSETS.unpack(buffer.raw)


def _counter(memory: int, rings: dict[int, tuple[int, int]], ring: int, offset: int) -> int | None:
    if ring not in rings or offset + 4 > rings[ring][1]:
        return None
    return int.from_bytes(os.pread(memory, 4, rings[ring][0] + offset), sys.byteorder)
