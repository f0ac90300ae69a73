"""Network devices and their counters, over rtnetlink (rtnetlink(7)): works in any namespace without its sysfs."""

import struct
from dataclasses import dataclass

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Attr, NetlinkSocket, decode

NETLINK_ROUTE, RTM_GETLINK = 0, 18
IFF_UP, IFF_LOOPBACK, IFF_LOWER_UP = 0x1, 0x8, 0x10000
IFINFO = struct.Struct("=BxHiII")
LINK = {3: Attr("name", "string"), 18: Attr("info", "nest", nest={1: Attr("kind", "string")}),
        23: Attr("stats64", "binary")}  # fmt: skip


@dataclass(frozen=True)
class Link:
    """One device and its ever-growing counters (struct rtnl_link_stats64)."""

    name: str
    ifindex: int
    up: bool
    """It was set up; whether packets can pass, `carrier` tells."""
    carrier: bool
    loopback: bool
    virtual: bool
    """Made by somebody (`ip link add`), and gone with its namespace: no NIC."""
    rx_packets: int
    tx_packets: int
    rx_dropped: int
    tx_dropped: int
    rx_missed: int
    """Packets for which the device found no free RX descriptor."""


def links(netns: NetworkNamespace | None = None) -> list[Link]:
    """All devices of one network namespace, by interface index."""
    with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
        messages = rtnetlink.ask(RTM_GETLINK, IFINFO.pack(0, 0, 0, 0, 0), what="listing devices", dump=True)
        return sorted((_link(message) for message in messages), key=lambda link: link.ifindex)


def _link(message: memoryview) -> Link:
    _, _, ifindex, flags, _ = IFINFO.unpack_from(message)
    found = decode(LINK, message[IFINFO.size :])
    # rx_packets tx_packets rx_bytes tx_bytes rx_errors tx_errors rx_dropped tx_dropped multicast collisions
    # rx_length_errors rx_over_errors rx_crc_errors rx_frame_errors rx_fifo_errors rx_missed_errors
    stats = struct.unpack_from("=16Q", found["stats64"])
    return Link(
        name=found["name"],
        ifindex=ifindex,
        up=bool(flags & IFF_UP),
        carrier=bool(flags & IFF_LOWER_UP),
        loopback=bool(flags & IFF_LOOPBACK),
        virtual="kind" in found.get("info", {}),
        rx_packets=stats[0],
        tx_packets=stats[1],
        rx_dropped=stats[6],
        tx_dropped=stats[7],
        rx_missed=stats[15],
    )
