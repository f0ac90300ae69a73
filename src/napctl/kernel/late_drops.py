"""Packets that one network namespace dropped after its stack had worked on them.

The counters are those of Documentation/networking/snmp_counter.rst.
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Self

from napctl.kernel.namespaces import OWN_NET, NetworkNamespace
from napctl.model.overload import LateDrops

__all__ = ["LateDropCounters"]


LONGEST = 1 << 18

FIELDS: Mapping[str, tuple[str, ...]] = {
    "udp_buffer": ("Udp:RcvbufErrors", "Udp:MemErrors", "Udp6RcvbufErrors", "Udp6MemErrors"),
    "udp_no_port": ("Udp:NoPorts", "Udp6NoPorts"),
    "tcp_backlog": ("TcpExt:TCPBacklogDrop",),
    "tcp_buffer": ("TcpExt:TCPRcvQDrop",),
    "listen": ("TcpExt:ListenDrops",),
}
"""A kernel that lacks one of a sum's counters does not count that kind apart: MemErrors came with 5.11 (6c8991f4)."""
WANTED = frozenset(name for names in FIELDS.values() for name in names)


class LateDropCounters:
    """Its counters, held open: each reading is three system calls, whatever namespace it is. A context manager."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        """Raises NotPermitted if that namespace cannot be entered."""
        with ExitStack() as open_now, namespace.entered():
            self._files = [
                (fd, parse)
                for name, parse in (("snmp", in_pairs), ("netstat", in_pairs), ("snmp6", in_lines))
                if (fd := _opened(f"{OWN_NET}/{name}", open_now)) is not None
            ]
            self._open = open_now.pop_all()

    def read(self) -> LateDrops:
        """Since the namespace was made."""
        found: dict[str, int] = {}
        for fd, parse in self._files:
            found |= parse(os.pread(fd, LONGEST, 0))
        sums = {kind: [found[name] for name in names if name in found] for kind, names in FIELDS.items()}
        return LateDrops(**{kind: sum(counts) if counts else None for kind, counts in sums.items()})

    def close(self) -> None:
        """Let them go."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _opened(path: str, open_now: ExitStack) -> int | None:
    """None where the kernel has no such file: without IPv6, above all."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    open_now.callback(os.close, fd)
    return fd


def in_pairs(text: bytes) -> dict[str, int]:
    """What is wanted of "Tcp: OutSegs …" above "Tcp: 17 …"."""
    found = {}
    lines = text.decode().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group, *columns = names.split()
        if group in ("Udp:", "TcpExt:"):
            told = values.split()[1:]
            for name, value in zip(columns, told, strict=False):
                if group + name in WANTED:
                    found[group + name] = int(value)
    return found


def in_lines(text: bytes) -> dict[str, int]:
    """What is wanted of "Udp6NoPorts     17"."""
    pairs = (line.split() for line in text.decode().splitlines() if line.startswith("Udp6"))
    return {name: int(value) for name, value in pairs if name in WANTED}
