"""What one network namespace sent by TCP and UDP (/proc/net/snmp and snmp6, proc_pid_net(5))."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.counts import SentCounts

__all__ = ["Tcp", "sent", "tcp"]


SNMP, SNMP6 = Path("/proc/thread-self/net/snmp"), Path("/proc/thread-self/net/snmp6")
"""Of the calling thread's namespace, where /proc/net would be that of the process's first thread."""


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


def _counters(namespace: NetworkNamespace) -> Mapping[str, int] | None:
    with namespace.entered():
        try:
            lines = SNMP.read_text().splitlines()
        except OSError:
            return None
        try:
            lines6 = SNMP6.read_text().splitlines()
        except OSError:  # no IPv6
            lines6 = []
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):  # "Tcp: OutSegs …" above "Tcp: 17 …"
        group, *columns = names.split()
        found |= {f"{group}{name}": int(value) for name, value in zip(columns, values.split()[1:], strict=True)}
    return found | {name: int(value) for name, value in map(str.split, lines6)}
