"""How full a ring of a packet socket is, as the kernel has it."""

import mmap
import os
import socket
import struct

import pytest

from napctl.kernel.packet_rings import packet_rings, waiting_share
from napctl.lab.bed import Lab
from tests.lab.helpers import until

pytestmark = pytest.mark.lab

SOL_PACKET, PACKET_RX_RING, PACKET_VERSION, ETH_P_ALL, TPACKET_V2 = 263, 5, 10, 3, 1


def test_a_ring_that_nobody_reads_fills_up(lab: Lab) -> None:
    with lab.server.namespace.entered():
        reader = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        reader.bind((lab.server.device, ETH_P_ALL))
    with reader:
        reader.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        reader.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("=4I", 4096, 4, 2048, 8))
        inode = os.fstat(reader.fileno()).st_ino
        ring = packet_rings(lab.server.namespace)[inode]
        assert (ring.block_bytes, ring.blocks, ring.frame_bytes) == (4096, 4, 2048)
        assert waiting_share(os.getpid(), inode, ring) is None
        with mmap.mmap(reader.fileno(), 4 * 4096):
            with lab.client.namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(20):
                    sender.sendto(b"x", (lab.server.address, 9))
            until(lambda: waiting_share(os.getpid(), inode, ring) == 1.0, "the ring is full")
