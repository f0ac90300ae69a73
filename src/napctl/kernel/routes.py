"""By which device a namespace sends to an address (rtnetlink(7), RTM_GETROUTE: as `ip route get`)."""

import struct

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Attr, NetlinkSocket, Refused, decode, encode
from napctl.kernel.sockets import ip_address

__all__ = ["device_to"]


NETLINK_ROUTE, RTM_GETROUTE = 0, 26
RTMSG = struct.Struct("=BBBBBBBBI")
ROUTE = {1: Attr("to", "binary"), 2: Attr("from", "binary"), 4: Attr("device")}


def device_to(netns: NetworkNamespace, peer: bytes, local: bytes) -> int | None:
    """Interface index of the device by which packets go from one struct sockaddr to another; None: by none.

    Loopback's, if the peer is this very host.
    """
    (family, to), (local_family, source) = ip_address(peer), ip_address(local)
    if not to or family != local_family:
        return None
    bits = 8 * len(to)
    request = RTMSG.pack(family, bits, bits, 0, 0, 0, 0, 0, 0) + encode(ROUTE, {"to": to, "from": source})
    try:
        with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
            for message in rtnetlink.ask(RTM_GETROUTE, request, what="looking for a route"):
                ifindex: int | None = decode(ROUTE, message[RTMSG.size :]).get("device")
                return ifindex
    except Refused:  # unreachable by now
        pass
    return None
