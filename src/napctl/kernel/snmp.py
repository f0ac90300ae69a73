"""TCP's counters of one network namespace (RFC 1213's tcp group in /proc/net/snmp, proc_pid_net(5))."""

from dataclasses import dataclass
from pathlib import Path

from napctl.kernel.namespaces import NetworkNamespace

SNMP = Path("/proc/thread-self/net/snmp")
"""Of the calling thread's namespace, where /proc/net would be that of the process's first thread."""


@dataclass(frozen=True)
class Tcp:
    """Segments since the namespace was made."""

    sent: int
    """OutSegs: without those that only carry retransmitted bytes."""
    retransmitted: int
    """RetransSegs."""


def tcp(namespace: NetworkNamespace) -> Tcp | None:
    """None if this kernel does not tell. Raises NotPermitted if that namespace cannot be entered."""
    with namespace.entered():
        try:
            lines = SNMP.read_text().splitlines()
        except OSError:
            return None
    names, values = [line.split() for line in lines if line.startswith("Tcp:")]
    found = dict(zip(names, values, strict=True))
    return Tcp(sent=int(found["OutSegs"]), retransmitted=int(found["RetransSegs"]))
