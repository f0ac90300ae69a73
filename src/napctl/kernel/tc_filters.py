"""Filters on a device's way in that its NIC executes itself (tc(8), `in_hw`; include/uapi/linux/pkt_cls.h)."""

import struct

from napctl.kernel.links import NETLINK_ROUTE
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Attr, NetlinkSocket, Refused, Table, decode

__all__ = ["filters_in_hardware", "in_hardware"]


RTM_GETTFILTER = 46
TCMSG = struct.Struct("=B3xiIII")
INGRESS = 0xFFFFFFF2
"""TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)."""
FILTER = {1: Attr("kind", "string"), 2: Attr("options", "binary")}
FLAGS: dict[str, Table] = {
    "flower": {22: Attr("flags")},
    "matchall": {3: Attr("flags")},
    "u32": {11: Attr("flags")},
    "bpf": {9: Attr("flags")},
}
"""TCA_FLOWER_FLAGS and so on: the kinds of which drivers take any."""
IN_HW = 1 << 2
"""TCA_CLS_FLAGS_IN_HW (Linux 4.11, commit e69985c67c33)."""


def filters_in_hardware(netns: NetworkNamespace, ifindex: int) -> int:
    """How many there are; 0 also where the kernel does not tell."""
    request = TCMSG.pack(0, ifindex, 0, INGRESS, 0)
    try:
        with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
            replies = rtnetlink.ask(RTM_GETTFILTER, request, what="listing filters", dump=True)
            return sum(in_hardware(reply[TCMSG.size :]) for reply in replies)
    except Refused:
        return 0


def in_hardware(attributes: bytes | memoryview) -> bool:
    """Whether the filter that these attributes describe is."""
    told = decode(FILTER, attributes)
    table = FLAGS.get(told.get("kind", ""))
    return bool(table and decode(table, told.get("options", b"")).get("flags", 0) & IN_HW)
