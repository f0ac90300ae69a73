"""Why connections have no NAPI id: what they are, and over which device they come."""

from collections import Counter
from collections.abc import Iterable

from napctl.kernel.links import Link, link
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.routes import device_to
from napctl.kernel.sockets import IPPROTO_MPTCP, SocketFacts

__all__ = ["why_unfed"]


MOST_ASKED = 16
"""Connections whose route is looked for: a few speak for all."""
MOST_TOLD = 2
MPTCP = (
    "are MPTCP: the kernel gives NAPI ids to their subflows, and none to the socket that the epoll instance watches; "
    "with net.mptcp.enabled 0 they would be plain TCP"
)


def why_unfed(netns: NetworkNamespace, sockets: Iterable[SocketFacts]) -> str:
    """Why no NAPI instance feeds these sockets of that network namespace; empty if no peer of theirs is known."""
    connected = [each for each in sockets if each.connected and each.kind in ("tcp", "udp")]
    reasons = Counter(MPTCP for each in connected if each.protocol == IPPROTO_MPTCP)
    others = [each for each in connected if each.protocol != IPPROTO_MPTCP][:MOST_ASKED]
    routes = Counter(device_to(netns, each.peer, each.address) for each in others)
    for ifindex, count in routes.items():
        device = link(netns, ifindex) if ifindex is not None else None
        if device is not None:
            reasons[_over(netns, device)] += count
    if len(reasons) == 1 and reasons.total() == min(len(connected), MOST_ASKED):
        (why,) = reasons
        return f"its connections {why}"
    return "; ".join(f"some of its connections {why}" for why, _ in reasons.most_common(MOST_TOLD))


def _over(netns: NetworkNamespace, device: Link) -> str:
    if device.loopback:
        return "come over loopback, which has no NAPI instance"
    with Netdev(netns) as netdev:
        if netdev.napis(device.ifindex):
            return f"go out by {device.name}, and have received no packet through one of its NAPI instances yet"
    if device.kind == "veth":
        return f"come over {device.name}, a veth, which has NAPI instances only with gro on or XDP"
    return f"come over {device.name}{f' ({device.kind})' if device.kind else ''}, which has no NAPI instance"
