"""Generic netlink families, found by name (Documentation/userspace-api/netlink/intro.rst)."""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Self

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import Attr, NetlinkSocket, Refused, Table, decode, encode, table
from napctl.model.errors import Unsupported

__all__ = ["Family"]


NETLINK_GENERIC = 16
GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 3
ENOENT = 2
GROUP = table({"name": "string", "id": "u32"})
GROUPS = {number: Attr("group", "nest", nest=GROUP, many=True) for number in range(1, 64)}
"""An array, whose attribute types are the places in it."""
CTRL = table({"family-id": "u16", "family-name": "string", "version": "u32"}) | {7: Attr("groups", "nest", nest=GROUPS)}
GENL_HEADER = struct.Struct("=BBH")


class Family:
    """One family on one socket. Raises Unsupported if this kernel does not have it. Use as a context manager."""

    def __init__(self, name: str, netns: NetworkNamespace | None = None):
        self.name = name
        self._socket = NetlinkSocket(NETLINK_GENERIC, netns)
        request = GENL_HEADER.pack(CTRL_CMD_GETFAMILY, 1, 0) + encode(CTRL, {"family-name": name})
        try:
            replies = list(self._socket.ask(GENL_ID_CTRL, request, what=f"netlink family {name}"))
        except Refused as refusal:
            self._socket.close()
            if refusal.errno == ENOENT:
                raise Unsupported(f"this kernel has no netlink family '{name}'") from None
            raise
        found = decode(CTRL, replies[0][4:])
        self._id: int = found["family-id"]
        self._groups = {group["name"]: group["id"] for group in found.get("groups", {}).get("group", ())}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def ask(
        self, command: int, request: Table, values: Mapping[str, Any], *, what: str, dump: bool = False
    ) -> Iterator[dict[str, Any]]:
        """One request; yields a dict per reply. Raises Refused."""
        for attributes in self.replies(command, request, values, what=what, dump=dump):
            yield decode(request, attributes)

    def replies(
        self, command: int, request: Table, values: Mapping[str, Any], *, what: str, dump: bool = False
    ) -> Iterator[memoryview]:
        """One request; yields the attributes of each reply as they come. Raises Refused."""
        payload = GENL_HEADER.pack(command, 1, 0) + encode(request, values)
        for message in self._socket.ask(self._id, payload, what=what, dump=dump, names=request, skip=4):
            yield message[4:]

    def join(self, group: str) -> None:
        """Receive the notifications of one of its multicast groups from now on. Raises Unsupported."""
        if group not in self._groups:
            raise Unsupported(f"this kernel's netlink family '{self.name}' has no notifications '{group}'")
        self._socket.join(self._groups[group])

    def fileno(self) -> int:
        """For select()."""
        return self._socket.fileno()

    def notifications(self) -> Iterator[tuple[int, memoryview]]:
        """(command, attributes) of what one receive brings; for a socket on which nothing is asked any more."""
        for kind, payload in self._socket.notifications():
            if kind == self._id:
                yield payload[0], payload[4:]
