"""What may take a device's packets before the stack does: queueing disciplines and BPF programs of the way in."""

import struct

from napctl.kernel import bpf
from napctl.kernel.links import NETLINK_ROUTE
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Attr, NetlinkSocket, decode

__all__ = ["ingress_hooks"]


RTM_GETQDISC = 38
TCMSG = struct.Struct("=B3xiIII")
QDISC = {1: Attr("kind", "string")}
OF_THE_WAY_IN = ("ingress", "clsact")


def ingress_hooks(netns: NetworkNamespace, ifindex: int) -> frozenset[str]:
    """Which of "ingress", "clsact", "tcx" a device has: what stands there may hand its packets to anybody.

    Raises Refused, OSError.
    """
    found: set[str] = set()
    with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
        for message in rtnetlink.ask(
            RTM_GETQDISC, TCMSG.pack(0, 0, 0, 0, 0), what="listing queueing disciplines", dump=True
        ):
            kind = decode(QDISC, message[TCMSG.size :]).get("kind", "")
            if TCMSG.unpack_from(message)[1] == ifindex and kind in OF_THE_WAY_IN:
                found.add(kind)
    if bpf.tcx_ingress(netns, ifindex):
        found.add("tcx")
    return frozenset(found)
