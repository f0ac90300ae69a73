"""What one network namespace sent and received by TCP and UDP (/proc/net/snmp and snmp6, proc_pid_net(5))."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from napctl.kernel.namespaces import OWN_NET, NetworkNamespace
from napctl.model.counts import SentCounts

__all__ = ["Delivered", "Served", "Tcp", "delivered", "sent", "served", "tcp"]


SNMP, SNMP6, NETSTAT = OWN_NET / "snmp", OWN_NET / "snmp6", OWN_NET / "netstat"

IPV4_HEADERS, IPV6_HEADERS = 52, 72
"""With those of TCP with timestamps: what GRO has merged is one packet with one header (skb_gro_receive())."""


@dataclass(frozen=True)
class Delivered:
    """What has reached whom it is for, since the namespace was made, over IPv4 and IPv6."""

    payload_bytes: int
    """Received, by TCP above all: unlike its segments they stay the same when requests wait and travel together."""
    datagrams: int
    """Of UDP, that somebody has read."""
    forwarded: int
    """Packets for others."""


@dataclass(frozen=True)
class Served:
    """What came of packets, since the namespace was made, over IPv4 and IPv6: nothing of it grows with those that were
    dropped on their way."""

    read_datagrams: int
    """Of UDP."""
    sent_segments: int
    """Of TCP, but resets: who is asked answers."""
    forwarded: int
    """Packets for others."""


@dataclass(frozen=True)
class Tcp:
    """Segments since the namespace was made, over IPv4 and IPv6."""

    sent: int
    """OutSegs: without those that only carry retransmitted bytes."""
    retransmitted: int
    """RetransSegs."""


def tcp(namespace: NetworkNamespace) -> Tcp | None:
    """None if this kernel does not tell. Raises NotPermitted if that namespace cannot be entered."""
    found = _counters(namespace)
    return None if found is None else Tcp(sent=found["Tcp:OutSegs"], retransmitted=found["Tcp:RetransSegs"])


def sent(namespace: NetworkNamespace) -> SentCounts | None:
    """None if this kernel does not tell. Raises as tcp()."""
    found = _counters(namespace)
    if found is None:
        return None
    datagrams = found["Udp:OutDatagrams"] + found.get("Udp6OutDatagrams", 0)
    return SentCounts(tcp_segments=found["Tcp:OutSegs"], udp_datagrams=datagrams)


def delivered(namespace: NetworkNamespace) -> Delivered | None:
    """None if this kernel does not tell. Raises as tcp()."""
    found = _counters(namespace)
    octets = _table(namespace, NETSTAT)
    if found is None or octets is None:
        return None
    payload = octets["IpExt:InOctets"] - IPV4_HEADERS * found["Ip:InReceives"]
    payload += found.get("Ip6InOctets", 0) - IPV6_HEADERS * found.get("Ip6InReceives", 0)
    return Delivered(
        payload_bytes=payload,
        datagrams=found["Udp:InDatagrams"] + found.get("Udp6InDatagrams", 0),
        forwarded=found["Ip:ForwDatagrams"] + found.get("Ip6OutForwDatagrams", 0),
    )


def served(namespace: NetworkNamespace) -> Served | None:
    """None if this kernel does not tell. Raises as tcp()."""
    found = _counters(namespace)
    if found is None:
        return None
    return Served(
        read_datagrams=found["Udp:InDatagrams"] + found.get("Udp6InDatagrams", 0),
        sent_segments=found["Tcp:OutSegs"] - found["Tcp:OutRsts"],
        forwarded=found["Ip:ForwDatagrams"] + found.get("Ip6OutForwDatagrams", 0),
    )


def _counters(namespace: NetworkNamespace) -> Mapping[str, int] | None:
    found = _table(namespace, SNMP)
    if found is None:
        return None
    with namespace.entered():
        try:
            lines6 = SNMP6.read_text().splitlines()
        except OSError:  # no IPv6
            lines6 = []
    return found | {name: int(value) for name, value in map(str.split, lines6)}


def _table(namespace: NetworkNamespace, path: Path) -> dict[str, int] | None:
    """A file of pairs of lines: "Tcp: OutSegs …" above "Tcp: 17 …"."""
    with namespace.entered():
        try:
            lines = path.read_text().splitlines()
        except OSError:
            return None
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        group, *columns = names.split()
        found |= {f"{group}{name}": int(value) for name, value in zip(columns, values.split()[1:], strict=True)}
    return found
