"""Sockets of AF_XDP of one network namespace: which queue each is bound to (include/uapi/linux/xdp_diag.h).

Since Linux 5.1 (commit a36b38aa2af6); a module, which the kernel loads when it is asked.
"""

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import NetlinkSocket, Refused, decode, table

__all__ = ["MESSAGE", "NETLINK_SOCK_DIAG", "REQUEST", "SOCK_DIAG_BY_FAMILY", "BoundSocket", "bound", "bound_sockets"]


NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, AF_XDP = 4, 20, 44
SHOW_INFO, SHOW_UMEM = 1 << 0, 1 << 2
ZERO_COPY = 1 << 0
"""XDP_DU_F_ZEROCOPY."""
REQUEST = struct.Struct("=BBHIIII")
"""struct xdp_diag_req: family, protocol; inode; what to show; cookie."""
MESSAGE = struct.Struct("=BBHIII")
"""struct xdp_diag_msg: family, type; inode; cookie."""
INFO = struct.Struct("=II")
UMEM = struct.Struct("=QIIIIIIII")
"""struct xdp_diag_umem: size; id, pages, chunk size, headroom, device, queue, flags, references."""
DIAG = table({"info": "binary", "uid": "u32", "rx-ring": "binary", "tx-ring": "binary", "umem": "binary"})
NOT_THERE = (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class BoundSocket:
    """One socket that is bound to a queue."""

    inode: int
    """As in the links of /proc/PID/fd."""
    ifindex: int
    queue: int
    zero_copy: bool | None
    """None: it shares the memory of another socket, and is not told."""
    source: str = "sock_diag"
    """What tells so."""


def bound_sockets(netns: NetworkNamespace) -> list[BoundSocket] | None:
    """All that are bound; None if this kernel does not tell (no xsk_diag, or no right to load it). Raises Refused."""
    request = REQUEST.pack(AF_XDP, 0, 0, 0, SHOW_INFO | SHOW_UMEM, 0, 0)
    try:
        with NetlinkSocket(NETLINK_SOCK_DIAG, netns) as diag:
            return list(bound(diag.ask(SOCK_DIAG_BY_FAMILY, request, what="listing AF_XDP sockets", dump=True)))
    except Refused as refusal:
        if refusal.errno in NOT_THERE:
            return None
        raise


def bound(messages: Iterable[memoryview]) -> Iterator[BoundSocket]:
    """What the answers of sock_diag tell."""
    for message in messages:
        inode = MESSAGE.unpack_from(message)[3]
        told = decode(DIAG, message[MESSAGE.size :])
        ifindex, queue = INFO.unpack_from(told.get("info", bytes(INFO.size)))
        if ifindex:  # else it is bound to nothing
            umem = told.get("umem")
            flags = UMEM.unpack_from(umem)[7] if umem and len(umem) >= UMEM.size else None
            yield BoundSocket(inode, ifindex, queue, None if flags is None else bool(flags & ZERO_COPY))
