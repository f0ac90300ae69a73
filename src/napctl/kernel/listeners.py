"""Sockets that wait for clients on a port, in every network namespace (proc_pid_net(5)).

/proc/PID/net shows the network namespace of that process, so nothing is entered and no capability is needed for it.
"""

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from napctl.kernel.processes import PROC, pids

__all__ = ["ListeningSocket", "listeners", "listeners_of", "network_namespaces", "read_table"]


TCP_LISTEN = "0A"
UNCONNECTED = "07"
"""TCP_CLOSE, which stands for a UDP socket without a peer: include/net/tcp_states.h, net/ipv4/udp.c."""
ADDRESS_FAMILY = {8: socket.AF_INET, 32: socket.AF_INET6}
"""By the length of the address as it is written: 32-bit words, each in the machine's byte order."""


@dataclass(frozen=True)
class ListeningSocket:
    """A TCP socket that listens, or a UDP socket that is bound and takes packets from anybody."""

    inode: int
    """Of the socket, as in the links of /proc/PID/fd."""
    port: int
    protocol: Literal["tcp", "udp"]
    netns: int
    """Inode number of its network namespace."""
    address: str
    """On which it waits: "0.0.0.0" and "::" are all."""


def listeners(port: int | None = None) -> list[ListeningSocket]:
    """Those on a port (None: on any), in every network namespace that a process is in and we may tell from others.

    The namespaces of processes into which we may not look are left out, but never our own.
    """
    found: list[ListeningSocket] = []
    for netns, members in _members_by_namespace().items():
        shown = (_shown_by(pid, netns, port) for pid in members)
        found += next((each for each in shown if each is not None), [])
    return found


def _shown_by(pid: int, netns: int, port: int | None) -> list[ListeningSocket] | None:
    """None if the process has ended, or has gone to another network namespace: its tables may be those of that."""
    found = list(listeners_of(netns, pid, port))
    return found if _namespace_of(pid) == netns else None


def network_namespaces() -> dict[int, int]:
    """{inode number: a process in it}; ours first."""
    return {netns: members[0] for netns, members in _members_by_namespace().items()}


def _members_by_namespace() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for pid in (os.getpid(), *pids()):
        if (netns := _namespace_of(pid)) is not None:
            found.setdefault(netns, []).append(pid)
    return found


def _namespace_of(pid: int) -> int | None:
    """None of one that has gone, a zombie, or one that is not ours to read."""
    try:
        link = os.readlink(f"{PROC}/{pid}/ns/net")  # noqa: PTH115 - thousands of processes
    except OSError:
        return None
    return int(link.removeprefix("net:[").removesuffix("]"))


def listeners_of(netns: int, pid: int, port: int | None = None) -> Iterator[ListeningSocket]:
    """Those on a port (None: on any) in the network namespace of a process, of which `netns` is the inode number.

    None if the process is gone.
    """
    protocol: Literal["tcp", "udp"]
    for protocol in ("tcp", "udp"):
        for table in (protocol, f"{protocol}6"):
            try:
                with (PROC / str(pid) / "net" / table).open() as lines:
                    yield from read_table(lines, protocol, netns, port)
            except OSError:  # no IPv6 in this kernel, or the process went
                continue


def read_table(
    lines: Iterator[str], protocol: Literal["tcp", "udp"], netns: int, port: int | None = None
) -> Iterator[ListeningSocket]:
    """From the lines of /proc/PID/net/{tcp,tcp6,udp,udp6}, the head line first."""
    next(lines, None)
    suffix = None if port is None else f":{port:04X}"
    for line in lines:
        fields = line.split(maxsplit=10)
        local, remote, state = fields[1:4]
        if protocol == "tcp" and state != TCP_LISTEN:
            return  # those that listen come first: tcp_get_idx() in net/ipv4/tcp_ipv4.c; connections may be 100,000
        if protocol == "udp" and (state != UNCONNECTED or not remote.endswith(":0000")):
            continue
        if suffix is not None and not local.endswith(suffix):
            continue
        address, local_port = local.split(":")
        yield ListeningSocket(
            inode=int(fields[9]), port=int(local_port, 16), protocol=protocol, netns=netns, address=_text(address)
        )


def _text(address: str) -> str:
    words = (int(address[start : start + 8], 16) for start in range(0, len(address), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return socket.inet_ntop(ADDRESS_FAMILY[len(address)], packed)
