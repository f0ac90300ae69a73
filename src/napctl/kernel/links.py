"""Network devices and their counters, over rtnetlink (rtnetlink(7)): works in any namespace without its sysfs."""

import errno
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Attr, NetlinkSocket, Refused, decode, encode
from napctl.model.errors import BadInput

__all__ = [
    "IFF_LOWER_UP",
    "IFF_UP",
    "IFINFO",
    "LINK",
    "NETLINK_ROUTE",
    "Link",
    "addresses",
    "called",
    "link",
    "links",
    "links_at",
    "links_named",
    "namespace_id",
]


NETLINK_ROUTE, RTM_GETLINK, RTM_GETADDR, RTM_GETNSID = 0, 18, 22, 90
IFF_UP, IFF_LOOPBACK, IFF_LOWER_UP = 0x1, 0x8, 0x10000
IFINFO = struct.Struct("=BxHiII")
LINK = {3: Attr("name", "string"), 5: Attr("link"), 10: Attr("master"),
        18: Attr("info", "nest", nest={1: Attr("kind", "string")}), 23: Attr("stats64", "binary"),
        37: Attr("link-netnsid", "s32"),
        52: Attr("properties", "nest", nest={53: Attr("alternative-name", "string", many=True)})}  # fmt: skip
IFNAMSIZ = 16
ALTERNATIVE_NAME = {53: Attr("alternative-name", "string")}
NSID = {1: Attr("id", "s32"), 3: Attr("fd")}  # include/uapi/linux/net_namespace.h

IFADDR = struct.Struct("=BBBBI")
ADDRESS = {1: Attr("address", "binary"), 2: Attr("local", "binary")}


@dataclass(frozen=True)
class Link:
    """One device and its ever-growing counters (struct rtnl_link_stats64)."""

    name: str
    alternative_names: tuple[str, ...]
    """By which it is found as well: `ip link property add`, since Linux 5.5 (commit 36fbf1e52bd3)."""
    ifindex: int
    up: bool
    """It was set up; whether packets can pass, `carrier` tells."""
    carrier: bool
    loopback: bool
    virtual: bool
    """Made by somebody (`ip link add`), and gone with its namespace: no NIC."""
    kind: str | None
    """"vlan", "bond", "veth" …; None for a NIC."""
    link: int | None
    """Interface index of the device on which it stands; of a veth, that of its peer."""
    link_netnsid: int | None
    """By which number its namespace knows that device's; None: it is the same."""
    master: int | None
    """Interface index of the bond, bridge or team whose port it is."""
    rx_packets: int
    tx_packets: int
    rx_dropped: int
    tx_dropped: int
    rx_missed: int
    """Packets for which the device found no free RX descriptor."""
    rx_overrun: int
    """Packets that its driver counts as rx_over_errors or rx_fifo_errors, whichever are more: mostly the same ones."""


def links(netns: NetworkNamespace | None = None) -> list[Link]:
    """All devices of one network namespace, by interface index."""
    with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
        messages = rtnetlink.ask(RTM_GETLINK, IFINFO.pack(0, 0, 0, 0, 0), what="listing devices", dump=True)
        return sorted((_link(message) for message in messages), key=lambda link: link.ifindex)


def link(netns: NetworkNamespace, ifindex: int) -> Link | None:
    """One of them; None if there is none with that index."""
    try:
        with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
            request = IFINFO.pack(0, 0, ifindex, 0, 0)
            return next(map(_link, rtnetlink.ask(RTM_GETLINK, request, what=f"reading device {ifindex}")), None)
    except Refused:
        return None


def links_at(netns: NetworkNamespace, ifindexes: Collection[int]) -> list[Link]:
    """Those of them that are there, by interface index, without a word about any other."""
    with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
        requests = (IFINFO.pack(0, 0, ifindex, 0, 0) for ifindex in sorted(ifindexes))
        return list(_each(rtnetlink, requests))


def links_named(netns: NetworkNamespace, names: Collection[str]) -> list[Link]:
    """Those that bear one of these names, an alternative one or not, each once, by interface index; of any other
    nothing is read, but where a name is no text and reads as others do (decode())."""
    if not all(map(_is_text, names)):
        return [each for each in links(netns) if {each.name, *each.alternative_names} & set(names)]
    with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
        found = _each(rtnetlink, (IFINFO.pack(0, 0, 0, 0, 0) + _named(name) for name in names))
        return [link for _, link in sorted({link.ifindex: link for link in found}.items())]


def _each(rtnetlink: NetlinkSocket, requests: Iterable[bytes]) -> Iterator[Link]:
    """What each tells of; nothing of a device that is not there."""
    for request in requests:
        try:
            yield from map(_link, rtnetlink.ask(RTM_GETLINK, request, what="reading a device"))
        except Refused as refusal:
            if refusal.errno not in (errno.ENODEV, errno.EINVAL, errno.ERANGE):  # the others: nothing can be called so
                raise


def _is_text(name: str) -> bool:
    return name.isprintable() and "\N{REPLACEMENT CHARACTER}" not in name


def _named(name: str) -> bytes:
    """Either kind of name is found by either attribute, but for its length."""
    if len(name.encode()) < IFNAMSIZ:
        return encode(LINK, {"name": name})
    return encode(ALTERNATIVE_NAME, {"alternative-name": name})


def namespace_id(netns: NetworkNamespace, other: NetworkNamespace) -> int | None:
    """By which number one namespace knows another; None: it does not, as no device has led from one to the other."""
    with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
        request = bytes(4) + encode(NSID, {"fd": other.fd})  # struct rtgenmsg
        for message in rtnetlink.ask(RTM_GETNSID, request, what="asking for a namespace's number"):
            number: int = decode(NSID, message[4:])["id"]
            return number if number >= 0 else None
    return None


def called(found: Iterable[Link], names: Collection[str]) -> list[Link]:
    """Those that bear these names, one of them an alternative one or not; each once. Raises BadInput."""
    by_name = {name: link for link in found for name in (link.name, *link.alternative_names)}
    for name in names:
        if name not in by_name:
            there = ", ".join(dict.fromkeys(link.name for link in by_name.values()))
            raise BadInput(f"{name}: no such network device here; there are {there}")
    return list({by_name[name].ifindex: by_name[name] for name in names}.values())


def addresses(netns: NetworkNamespace | None = None) -> dict[int, frozenset[str]]:
    """Addresses of the devices of one network namespace, as people write them, by interface index."""
    found: dict[int, frozenset[str]] = {}
    with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
        for message in rtnetlink.ask(RTM_GETADDR, IFADDR.pack(0, 0, 0, 0, 0), what="listing addresses", dump=True):
            family, _, _, _, ifindex = IFADDR.unpack_from(message)
            told = decode(ADDRESS, message[IFADDR.size :])
            address = told.get("local", told.get("address"))  # of a point-to-point link "address" is the peer's
            if address is not None and family in (socket.AF_INET, socket.AF_INET6):
                found[ifindex] = found.get(ifindex, frozenset()) | {socket.inet_ntop(family, address)}
    return found


def _link(message: memoryview) -> Link:
    _, _, ifindex, flags, _ = IFINFO.unpack_from(message)
    found = decode(LINK, message[IFINFO.size :])
    # rx_packets tx_packets rx_bytes tx_bytes rx_errors tx_errors rx_dropped tx_dropped multicast collisions
    # rx_length_errors rx_over_errors rx_crc_errors rx_frame_errors rx_fifo_errors rx_missed_errors
    stats = struct.unpack_from("=16Q", found["stats64"])
    return Link(
        name=found["name"],
        alternative_names=found.get("properties", {}).get("alternative-name", ()),
        ifindex=ifindex,
        up=bool(flags & IFF_UP),
        carrier=bool(flags & IFF_LOWER_UP),
        loopback=bool(flags & IFF_LOOPBACK),
        virtual="kind" in found.get("info", {}),
        kind=found.get("info", {}).get("kind"),
        link=found.get("link") or None,
        link_netnsid=found.get("link-netnsid"),
        master=found.get("master") or None,
        rx_packets=stats[0],
        tx_packets=stats[1],
        rx_dropped=stats[6],
        tx_dropped=stats[7],
        rx_missed=stats[15],
        rx_overrun=max(stats[11], stats[14]),
    )
