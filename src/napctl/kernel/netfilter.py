"""What may give a packet another destination on its way in: rules of nftables and iptables, services of IPVS.

nftables is asked over its own netlink family (include/uapi/linux/netfilter/nf_tables.h), so that no tool is needed; the
tables of iptables-legacy and the services of IPVS stand in /proc/net.
"""

import errno
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napctl.kernel.namespaces import OWN_NET, NetworkNamespace
from napctl.kernel.netlink import Attr, NetlinkSocket, Refused, Table, decode

__all__ = ["ipvs_services", "legacy_tables", "nft_expressions", "nft_generation", "translators"]


NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES = 12, 10
NFT_MSG_GETRULE, NFT_MSG_GETGEN = 7, 16
NFGENMSG = struct.Struct("=BBH")
ABSENT = (errno.EINVAL, errno.EPROTONOSUPPORT)
"""What a kernel without nf_tables answers to whatever is asked: nfnetlink has no such subsystem, or there is none."""
MODULES = Path("/sys/module")
TRANSLATORS = ("jool", "jool_siit")
"""Modules that give packets other addresses in hooks of their own, of which nf_tables knows nothing."""

NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
TARGET = {1: Attr("name", "string")}
PAYLOAD = {2: Attr("base", "binary"), 5: Attr("written-from", "binary")}
DATA: dict[str, Table] = {"target": TARGET, "payload": PAYLOAD}
"""Attributes of those expressions of which more than the name counts."""
EXPRESSION = {1: Attr("name", "string"), 2: Attr("data", "binary")}
RULE = {4: Attr("expressions", "nest", nest={1: Attr("expression", "nest", nest=EXPRESSION, many=True)})}
GENERATION = {1: Attr("id", "binary")}


def nft_expressions(netns: NetworkNamespace) -> frozenset[str]:
    """Names of the expressions that the rules of a namespace consist of; none where the kernel has no nf_tables.

    "target NAME" is one of iptables-nft; "payload set" writes into the header of the packet's network or transport
    layer. Needs CAP_NET_ADMIN. Raises Refused, OSError.
    """
    found: set[str] = set()
    try:
        for message in _asked(netns, NFT_MSG_GETRULE, dump=True):
            for each in decode(RULE, message[NFGENMSG.size :]).get("expressions", {}).get("expression", ()):
                found.add(_name(each))
    except (OSError, Refused) as error:
        if error.errno not in ABSENT or _generation(netns) is not None:
            raise
    return frozenset(found)


def nft_generation(netns: NetworkNamespace) -> int:
    """A number that changes whenever the rules do; 0 where the kernel has no nf_tables. Raises Refused, OSError."""
    return _generation(netns) or 0


def legacy_tables(netns: NetworkNamespace) -> frozenset[str]:
    """Names of the tables of iptables-legacy and ip6tables-legacy in a namespace. Raises OSError."""
    lines = [*_lines(netns, "ip_tables_names"), *_lines(netns, "ip6_tables_names")]
    return frozenset(line.strip() for line in lines)


def ipvs_services(netns: NetworkNamespace) -> int:
    """How many virtual services IPVS has in a namespace. Raises OSError."""
    return sum(line.startswith(("TCP ", "UDP ", "SCTP", "FWM ")) for line in _lines(netns, "ip_vs"))


def translators() -> frozenset[str]:
    """Which modules are loaded that translate addresses on their own, in whatever namespace."""
    return frozenset(name for name in TRANSLATORS if (MODULES / name).exists())


def _generation(netns: NetworkNamespace) -> int | None:
    """None where the kernel has no nf_tables: it refuses this for no other reason."""
    try:
        for message in _asked(netns, NFT_MSG_GETGEN, dump=False):
            return int.from_bytes(decode(GENERATION, message[NFGENMSG.size :]).get("id", b""), "big")
    except (OSError, Refused) as error:
        if error.errno not in ABSENT:
            raise
        return None
    return 0


def _name(expression: dict[str, Any]) -> str:
    name: str = expression.get("name", "")
    told = decode(DATA[name], expression.get("data", b"")) if name in DATA else {}
    if name == "target":
        return f"target {told.get('name', '')}"
    written = int.from_bytes(told.get("base", b""), "big") in (NETWORK_HEADER, TRANSPORT_HEADER)
    return "payload set" if "written-from" in told and written else name


def _asked(netns: NetworkNamespace, message: int, *, dump: bool) -> Iterator[memoryview]:
    kind = NFNL_SUBSYS_NFTABLES << 8 | message
    with NetlinkSocket(NETLINK_NETFILTER, netns) as netfilter:
        yield from netfilter.ask(kind, NFGENMSG.pack(0, 0, 0), what="reading the rules of nftables", dump=dump)


def _lines(netns: NetworkNamespace, name: str) -> list[str]:
    """Of a file that is missing where its module is not loaded."""
    try:
        with netns.entered():
            return (OWN_NET / name).read_text().splitlines()
    except FileNotFoundError:
        return []
