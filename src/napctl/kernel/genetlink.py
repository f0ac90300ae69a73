"""Generic netlink families, found by name (Documentation/userspace-api/netlink/intro.rst)."""

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Self

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netlink import NetlinkSocket, Refused, Table, decode, encode, table
from napctl.model.errors import Unsupported

NETLINK_GENERIC = 16
GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 3
ENOENT = 2
CTRL = table({"family-id": "u16", "family-name": "string", "version": "u32"})
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
        self._id: int = decode(CTRL, replies[0][4:])["family-id"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def ask(
        self, command: int, request: Table, values: Mapping[str, Any], *, what: str, dump: bool = False,
        reply: Table | None = None,
    ) -> Iterator[dict[str, Any]]:  # fmt: skip
        """One request; yields a dict per reply, read with `reply` (the request's table by default). Raises Refused."""
        payload = GENL_HEADER.pack(command, 1, 0) + encode(request, values)
        messages = self._socket.ask(self._id, payload, what=what, dump=dump, names=request, skip=4)
        for message in messages:
            yield decode(reply or request, message[4:])
