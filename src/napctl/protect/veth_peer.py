"""The other end of a veth: what it could not hand over, and whether its packets pass by NAPI.

It is looked for where a process lives. No descriptor of its namespace is held: that would keep it from going.
"""

from collections.abc import Iterator
from contextlib import suppress

from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.links import Link, link, namespace_id
from napctl.kernel.listeners import network_namespaces
from napctl.kernel.namespaces import NAMED, NetworkNamespace
from napctl.model.errors import NapctlError

__all__ = ["VethPeer"]


class VethPeer:
    """Of a veth in a network namespace."""

    def __init__(self, netns: NetworkNamespace, end: Link):
        self._netns, self._end = netns, end
        self._path: str | None = None
        """Of the peer's namespace; empty: it is the same."""

    @property
    def is_found(self) -> bool:
        """Whether it was to be seen at the last look."""
        return self._path is not None

    def find(self) -> bool:
        """Look for it; whether it can be seen. It takes a look at every process."""
        number = self._end.link_netnsid
        if number is None:
            self._path = ""
            return True
        self._path = None
        for path in _paths():
            with suppress(NapctlError, OSError), NetworkNamespace.open(path) as other:  # gone, or not ours to see
                if namespace_id(self._netns, other) == number:
                    self._path = path
                    return True
        return False

    def dropped(self) -> int | None:
        """Packets that it could not hand over, as this end's ring was full, since it was made; None: not to be seen."""
        found = self._link()
        return None if found is None else found.tx_dropped

    def has_tso(self) -> bool | None:
        """Whether it hands over what passes by NAPI (veth_skb_is_eligible_for_gro() in drivers/net/veth.c)."""
        with suppress(NapctlError, OSError):
            if (found := self._link()) is not None and self._path is not None:
                if not self._path:
                    with EthtoolIoctl(self._netns) as ioctl:
                        return ioctl.has_tso(found.name)
                with NetworkNamespace.open(self._path) as other, EthtoolIoctl(other) as ioctl:
                    return ioctl.has_tso(found.name)
        return None

    def _link(self) -> Link | None:
        if self._path is None or self._end.link is None:
            return None
        if not self._path:
            return link(self._netns, self._end.link)
        try:
            with NetworkNamespace.open(self._path) as other:
                found = link(other, self._end.link)
        except (NapctlError, OSError):
            found = None
        if found is None or found.kind != "veth":
            self._path = None  # that process has gone, and another may have its pid
            return None
        return found


def _paths() -> Iterator[str]:
    yield from (f"/proc/{pid}/ns/net" for pid in network_namespaces().values())
    with suppress(OSError):
        yield from (str(each) for each in NAMED.iterdir())
