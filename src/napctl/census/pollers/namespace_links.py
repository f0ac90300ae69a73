"""Devices and AF_XDP sockets of the network namespaces in which suspects are, each namespace read once at a time."""

import time
from typing import Self

from napctl.kernel import links
from napctl.kernel.links import Link
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.packet_rings import PacketRing, packet_rings
from napctl.kernel.processes import process
from napctl.kernel.xdp_diag import BoundSocket, bound_sockets
from napctl.observe.xdp_sockets import sockets_by_queues

__all__ = ["Namespaces"]


class Namespaces:
    """Use as a context manager: it holds them open, so that they can be read again when their processes have ended."""

    def __init__(self) -> None:
        self._open: dict[int, NetworkNamespace] = {}
        self._of: dict[int, int] = {}
        self._links: dict[int, dict[int, Link]] = {}
        self._links_at: dict[int, float] = {}
        self._sockets: dict[int, list[BoundSocket] | None] = {}
        self._rings: dict[int, dict[int, PacketRing]] = {}
        self.silent = False
        """This kernel does not tell which sockets are AF_XDP's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for each in self._open.values():
            each.close()

    def links(self, pid: int) -> dict[int, Link]:
        """Devices of its namespace by interface index, as they were when that was read. Raises OSError, NapctlError."""
        netns = self._namespace(pid)
        if netns.inode not in self._links:
            self._links[netns.inode] = {link.ifindex: link for link in links.links(netns)}
            self._links_at[netns.inode] = time.monotonic()
        return self._links[netns.inode]

    def links_at(self, pid: int) -> float:
        """When they were read. Raises as links()."""
        self.links(pid)
        return self._links_at[self._namespace(pid).inode]

    def xdp_sockets(self, pid: int) -> tuple[BoundSocket, ...]:
        """AF_XDP sockets of its namespace, whoever holds them; where the kernel tells of queues alone, its own. Raises
        OSError, NapctlError."""
        netns = self._namespace(pid)
        if netns.inode not in self._sockets:
            self._sockets[netns.inode] = bound_sockets(netns)
        found = self._sockets[netns.inode]
        if found is None and (ours := process(pid)) is not None:
            found = sockets_by_queues(netns, ours)
            self.silent |= found is None
        return tuple(found or ())

    def packet_rings(self, pid: int) -> dict[int, PacketRing]:
        """Rings of the packet sockets of its namespace, by inode number. Raises OSError, NapctlError."""
        netns = self._namespace(pid)
        if netns.inode not in self._rings:
            self._rings[netns.inode] = packet_rings(netns)
        return self._rings[netns.inode]

    def forget(self) -> None:
        """Read devices anew from now on."""
        self._links.clear()

    def _namespace(self, pid: int) -> NetworkNamespace:
        if pid not in self._of:
            netns = NetworkNamespace.of_process(pid)
            self._of[pid] = netns.inode
            if netns.inode in self._open:
                netns.close()
            else:
                self._open[self._of[pid]] = netns
        return self._open[self._of[pid]]
