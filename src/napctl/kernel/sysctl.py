"""Kernel parameters that each network namespace has for itself (Documentation/networking/ip-sysctl.rst)."""

from pathlib import Path

from napctl.kernel.namespaces import NetworkNamespace

__all__ = ["read_global", "read_number"]


ROOT = Path("/proc/sys/net")


def read_number(namespace: NetworkNamespace, name: str) -> int | None:
    """For example ipv4/tcp_limit_output_bytes; None if this kernel does not have it.

    /proc/sys/net shows the namespace of the reader. Raises NotPermitted if that namespace cannot be entered.
    """
    with namespace.entered():
        try:
            return int((ROOT / name).read_text())
        except (OSError, ValueError):
            return None


def read_global(name: str) -> int | None:
    """One that all network namespaces share, such as "core/busy_poll"; None if this kernel does not have it."""
    try:
        return int((ROOT / name).read_text())
    except (OSError, ValueError):
        return None
