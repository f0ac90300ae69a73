"""How full the rings are in which another process gets copies of packets (packet(7), PACKET_RX_RING).

What finds a ring full is dropped and counted for the one who asks by PACKET_STATISTICS, which sets the count back: from
outside the ring itself has to tell, in the memory of the process. Its size: include/uapi/linux/packet_diag.h.
"""

import errno
import os
import struct
import sys
from dataclasses import dataclass

from napctl.kernel.held_files import file_mappings
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Attr, NetlinkSocket, Refused, decode
from napctl.kernel.processes import PROC
from napctl.kernel.xdp_diag import MESSAGE, NETLINK_SOCK_DIAG, REQUEST, SOCK_DIAG_BY_FAMILY

__all__ = ["PacketRing", "packet_rings", "waiting_share"]


AF_PACKET = 17
SHOW_RING = 1 << 2
"""PACKET_SHOW_RING_CFG. struct packet_diag_req and struct packet_diag_msg are as those of AF_XDP."""
RING = struct.Struct("=7I")
"""struct packet_diag_ring: block size, blocks, frame size, frames, timeout, private bytes, features."""
RINGS = {2: Attr("rx", "binary")}
USER = 1 << 0
"""TP_STATUS_USER of a frame: it waits to be read."""
MOST_FRAMES = 1 << 16


@dataclass(frozen=True)
class PacketRing:
    """An RX ring of frames (TPACKET_V1 and V2)."""

    block_bytes: int
    blocks: int
    frame_bytes: int


def packet_rings(netns: NetworkNamespace) -> dict[int, PacketRing]:
    """By inode number; none where the kernel does not tell (no packet_diag). Raises NapctlError, OSError."""
    found = {}
    try:
        with NetlinkSocket(NETLINK_SOCK_DIAG, netns) as diag:
            request = REQUEST.pack(AF_PACKET, 0, 0, 0, SHOW_RING, 0, 0)
            for message in diag.ask(SOCK_DIAG_BY_FAMILY, request, what="listing packet sockets", dump=True):
                ring = decode(RINGS, message[MESSAGE.size :]).get("rx", b"")
                if len(ring) >= RING.size:
                    block_bytes, blocks, frame_bytes, _, timeout, _, _ = RING.unpack_from(ring)
                    if frame_bytes and not timeout:  # else TPACKET_V3, whose frames have no fixed place
                        found[MESSAGE.unpack_from(message)[3]] = PacketRing(block_bytes, blocks, frame_bytes)
    except Refused as refusal:
        if refusal.errno not in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP):
            raise
    return found


def waiting_share(pid: int, inode: int, ring: PacketRing) -> float | None:
    """How much of it waits to be read, 0 … 1; None: it is not mapped. Raises OSError: no rights, gone."""
    address, mapped = file_mappings(pid, inode).get(0, (0, 0))
    each_block = ring.block_bytes // ring.frame_bytes
    frames = min(each_block * ring.blocks, MOST_FRAMES)
    if not frames or ring.block_bytes * ring.blocks > mapped:
        return None
    memory = os.open(PROC / str(pid) / "mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        waiting = 0
        for frame in range(frames):
            at = address + frame // each_block * ring.block_bytes + frame % each_block * ring.frame_bytes
            waiting += int.from_bytes(os.pread(memory, 4, at), sys.byteorder) & USER
        return waiting / frames
    finally:
        os.close(memory)
