"""Sockets whose rings a process has mapped: those of AF_XDP and of AF_PACKET (proc_pid_maps(5))."""

import re

from napctl.kernel.processes import PROC

__all__ = ["mapped_sockets"]


MAPPED = re.compile(rb" socket:\[(\d+)\]$", re.M)


def mapped_sockets(pid: int) -> frozenset[int]:
    """Their inode numbers. Raises OSError: it is gone, or not ours to read."""
    return frozenset(map(int, MAPPED.findall((PROC / str(pid) / "maps").read_bytes())))
