"""Which XDP program a device has, and exchanging it, over rtnetlink (IFLA_XDP of include/uapi/linux/if_link.h).

What is attached so stays when the process ends, and an exchange names the program that it expects, so that nobody
else's is ever taken away (XDP_FLAGS_REPLACE, Linux 5.7, commit 92234c8f15c8).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from napctl.kernel.links import IFINFO, NETLINK_ROUTE
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Attr, NetlinkSocket, Refused, decode, encode

__all__ = ["XdpDevice", "exchange_program", "xdp_device", "xdp_devices"]


RTM_GETLINK, RTM_SETLINK = 18, 19
UPDATE_IF_NOEXIST, SKB_MODE, DRV_MODE, REPLACE = 1 << 0, 1 << 1, 1 << 2, 1 << 4
ARPHRD_ETHER = 1
NOTHING = -1
XDP = {1: Attr("fd", "s32"), 3: Attr("flags"), 4: Attr("program"), 5: Attr("native"), 6: Attr("generic"),
       7: Attr("offloaded"), 8: Attr("expected-fd", "s32")}  # fmt: skip
LINK = {1: Attr("mac", "binary"), 3: Attr("name", "string"), 43: Attr("xdp", "nest", nest=XDP)}


@dataclass(frozen=True)
class XdpDevice:
    """A device and its XDP programs, by their ids; 0: none."""

    name: str
    ifindex: int
    mac: bytes
    ethernet: bool
    native: int
    """In the driver."""
    generic: int
    """After an skb was made of the packet."""
    offloaded: int
    """In the NIC itself."""

    @property
    def programs(self) -> tuple[int, ...]:
        """Those that there are."""
        return tuple(number for number in (self.native, self.generic, self.offloaded) if number)


def xdp_device(netns: NetworkNamespace, ifindex: int) -> XdpDevice | None:
    """One device; None if there is none with that index. Raises OSError, Refused."""
    try:
        with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
            request = IFINFO.pack(0, 0, ifindex, 0, 0)
            return next(map(_device, rtnetlink.ask(RTM_GETLINK, request, what=f"reading device {ifindex}")), None)
    except Refused as refusal:
        if refusal.errno == 19:  # ENODEV
            return None
        raise


def xdp_devices(netns: NetworkNamespace) -> Iterator[XdpDevice]:
    """All devices of a namespace."""
    with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
        request = IFINFO.pack(0, 0, 0, 0, 0)
        yield from map(_device, rtnetlink.ask(RTM_GETLINK, request, what="listing devices", dump=True))


def exchange_program(
    netns: NetworkNamespace, ifindex: int, fd: int | None, expected_fd: int | None, *, generic: bool
) -> None:
    """Put a program (None: none) in the place of the one that is expected there (None: none), and of no other.

    Raises Refused: EBUSY or EEXIST if another one is there, EOPNOTSUPP if the driver has no native XDP.
    """
    flags = SKB_MODE if generic else DRV_MODE
    if expected_fd is None:
        asked = {"fd": NOTHING if fd is None else fd, "flags": flags | UPDATE_IF_NOEXIST}
    else:
        asked = {"fd": NOTHING if fd is None else fd, "flags": flags | REPLACE, "expected-fd": expected_fd}
    request = IFINFO.pack(0, 0, ifindex, 0, 0) + encode(LINK, {"xdp": asked})
    with NetlinkSocket(NETLINK_ROUTE, netns) as rtnetlink:
        what = f"XDP program of device {ifindex}"
        for _ in rtnetlink.ask(RTM_SETLINK, request, what=what, names=LINK, skip=IFINFO.size):
            pass


def _device(message: memoryview) -> XdpDevice:
    _, kind, ifindex, _, _ = IFINFO.unpack_from(message)
    found = decode(LINK, message[IFINFO.size :])
    xdp = found.get("xdp", {})
    return XdpDevice(
        name=found["name"],
        ifindex=ifindex,
        mac=found.get("mac", b""),
        ethernet=kind == ARPHRD_ETHER,
        native=xdp.get("native", 0),
        generic=xdp.get("generic", 0),
        offloaded=xdp.get("offloaded", 0),
    )
