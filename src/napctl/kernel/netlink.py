"""Netlink: messages, attributes described by tables, and the kernel's own words when it refuses.

Sockets belong to the network namespace in which they were opened (netlink(7)), so one process can talk to many
namespaces at once; that, exact refusals and start-up time are why this is not a library (docs/architecture.md).
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import NapctlError

__all__ = [
    "DUMPS",
    "HEADER",
    "NLMSG_DONE",
    "NLM_F_DUMP_INTR",
    "Attr",
    "NetlinkSocket",
    "Refused",
    "Table",
    "decode",
    "encode",
    "table",
]


NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 1, 11, 12
NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS = 1, 2
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")

DUMPS = 20
"""How often a list that changes while the kernel gives it is asked for, before that is an error."""
SCALARS = {1: "=B", 2: "=H", 4: "=I", 8: "=Q"}


@dataclass(frozen=True)
class Attr:
    """One attribute of a family: its name and how its bytes read.

    `kind`: u8, u16, u32, u64, uint (4 or 8 bytes, as the kernel likes), s32, string, binary, nest.
    `many`: the attribute may stand several times and reads as a tuple.
    """

    name: str
    kind: str = "u32"
    nest: "Mapping[int, Attr] | None" = None
    many: bool = False


Table = Mapping[int, Attr]


def table(kinds: Mapping[str, str], first: int = 1) -> dict[int, Attr]:
    """Attributes numbered from `first` in the order given, as the kernel's headers list them: {name: kind}."""
    return {number: Attr(name, kind) for number, (name, kind) in enumerate(kinds.items(), first)}


class Refused(NapctlError):
    """The kernel refused a request. `errno` is its code, `text` its own words, `attribute` the attribute it names."""

    def __init__(self, what: str, errno: int, text: str | None, attribute: str | None = None):
        self.errno, self.text, self.attribute = errno, text, attribute
        why = text or os.strerror(errno)
        super().__init__(f"{what}: the kernel refuses: {why}" + (f" ({attribute})" if attribute else ""))
        self.exit_status = 4 if errno in (1, 13) else 3  # EPERM, EACCES: a capability; else: it can't


class _Interrupted(Exception):
    """The list changed while it was dumped."""


def encode(attributes: Table, values: Mapping[str, Any]) -> bytes:
    """The bytes of `values`, in the order given. Raises KeyError for a name that the table lacks."""
    numbers = {attr.name: (number, attr) for number, attr in attributes.items()}
    out = b""
    for name, value in values.items():
        number, attr = numbers[name]
        for one in value if attr.many else (value,):
            payload = _encode_one(attr, one)
            nested = NLA_F_NESTED if attr.kind == "nest" else 0
            out += ATTRIBUTE.pack(4 + len(payload), number | nested) + payload + b"\0" * (-len(payload) % 4)
    return out


def _encode_one(attr: Attr, value: Any) -> bytes:
    match attr.kind:
        case "nest":
            return encode(attr.nest or {}, value)
        case "string":
            return str(value).encode() + b"\0"
        case "binary":
            return bytes(value)
        case "uint":
            return struct.pack("=I" if value < 2**32 else "=Q", value)
        case "s32":
            return struct.pack("=i", value)
        case "u8" | "u16" | "u32" | "u64":
            return struct.pack(SCALARS[int(attr.kind[1:]) // 8], value)
    raise ValueError(f"attribute {attr.name} has the unknown kind {attr.kind}")


def decode(attributes: Table, data: bytes | memoryview) -> dict[str, Any]:
    """{name: value}; attributes that the table does not know are left out, so that newer kernels can be read."""
    found: dict[str, Any] = {}
    data, at = memoryview(data), 0
    while at + 4 <= len(data):
        length, number = ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            break
        attr = attributes.get(number & NLA_TYPE_MASK)
        if attr is not None:  # of most messages most are unknown
            value = _decode_one(attr, data[at + 4 : at + length])
            found[attr.name] = (*found.get(attr.name, ()), value) if attr.many else value
        at += (length + 3) & ~3
    return found


def _decode_one(attr: Attr, payload: memoryview) -> Any:
    match attr.kind:
        case "nest":
            return decode(attr.nest or {}, payload)
        case "string":
            return bytes(payload).rstrip(b"\0").decode(errors="replace")
        case "binary":
            return bytes(payload)
        case "s32":
            return struct.unpack("=i", payload)[0]
    return struct.unpack(SCALARS[len(payload)], payload)[0]


def _attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at + 4 <= len(data):
        length, number = ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            return
        yield number & NLA_TYPE_MASK, data[at + 4 : at + length]
        at += (length + 3) & ~3


class NetlinkSocket:
    """A netlink socket in one network namespace (the caller's by default). Use as a context manager."""

    def __init__(self, protocol: int, netns: NetworkNamespace | None = None):
        if netns is None:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        else:
            with netns.entered():
                self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        # Without strict checking a dump ignores its filter attributes (kernel commit 89d35528d17d).
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def join(self, group: int) -> None:
        """Receive the notifications of a multicast group from now on."""
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        """For select()."""
        return self._socket.fileno()

    def notifications(self) -> Iterator[tuple[int, memoryview]]:
        """(message type, payload) of what one receive brings; waits for it. Raises OSError ENOBUFS if some were lost.

        For sockets on which nothing is asked.
        """
        data = memoryview(self._socket.recv(1 << 18))
        at = 0
        while at + 16 <= len(data):
            length, kind, _, _, _ = HEADER.unpack_from(data, at)
            yield kind, data[at + 16 : at + length]
            at += (length + 3) & ~3

    def ask(
        self, kind: int, payload: bytes, *, what: str, dump: bool = False, names: Table | None = None, skip: int = 0
    ) -> Iterator[memoryview]:
        """Send one request and yield the payload of every reply message.

        A dump during which the kernel's list has changed may lack entries that were there all the time, or have some
        twice: it is asked for again (Documentation/userspace-api/netlink/intro.rst, "Dump consistency").

        `what` opens the error message; `names` and `skip` (bytes before the first attribute of `payload`) let a
        refusal name the attribute at fault. Raises Refused, and NapctlError for a list that never stands still.
        """
        if not dump:
            yield from self._answer(kind, payload, what, names, skip, dump=False)
            return
        for _ in range(DUMPS):
            try:
                yield from list(self._answer(kind, payload, what, names, skip, dump=True))
                return
            except _Interrupted:
                continue
        raise NapctlError(f"{what}: it changed during each of {DUMPS} attempts to read it; try again")

    def _answer(
        self, kind: int, payload: bytes, what: str, names: Table | None, skip: int, *, dump: bool
    ) -> Iterator[memoryview]:
        """One request and its answer. Raises Refused, _Interrupted."""
        self._sequence += 1
        flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else NLM_F_ACK)
        self._socket.send(HEADER.pack(16 + len(payload), kind, flags, self._sequence, 0) + payload)
        interrupted = False
        while True:
            data = memoryview(self._socket.recv(1 << 18))
            at = 0
            while at + 16 <= len(data):
                length, reply, flags, sequence, _ = HEADER.unpack_from(data, at)
                body = data[at + 16 : at + length]
                at += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # the rest of an answer that its reader gave up
                interrupted |= bool(dump and flags & NLM_F_DUMP_INTR)  # of any message, also the last
                if reply in (NLMSG_ERROR, NLMSG_DONE):
                    self._raise_on_error(reply, flags, body, what, payload, names, skip)
                    if interrupted:
                        raise _Interrupted
                    return
                yield body

    @staticmethod
    def _raise_on_error(
        kind: int, flags: int, body: memoryview, what: str, request: bytes, names: Table | None, skip: int
    ) -> None:
        """Error and end-of-dump messages both begin with an errno, 0 or negative (netlink(7))."""
        code = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
        if code == 0:
            return
        notes: dict[int, memoryview] = {}
        if flags & NLM_F_ACK_TLVS:
            at = 4
            if kind == NLMSG_ERROR:  # the request's header follows, and all of the request unless capped
                at += 16 if flags & NLM_F_CAPPED else (struct.unpack_from("=I", body, 4)[0] + 3) & ~3
            notes = dict(_attributes(body[at:]))
        text = bytes(notes[NLMSGERR_ATTR_MSG]).rstrip(b"\0").decode() if NLMSGERR_ATTR_MSG in notes else None
        attribute = None
        if NLMSGERR_ATTR_OFFS in notes and names is not None:
            offset = struct.unpack("=I", notes[NLMSGERR_ATTR_OFFS])[0] - 16
            attribute = _name_at(names, memoryview(request)[skip:], offset - skip)
        raise Refused(what, -code, text, attribute)


def _name_at(names: Table, data: memoryview, offset: int) -> str | None:
    """Name of the attribute whose bytes hold `offset`."""
    at = 0
    while at + 4 <= len(data):
        length, number = ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            return None
        if at <= offset < at + length:
            attr = names.get(number & NLA_TYPE_MASK)
            if attr is not None and attr.nest is not None and offset > at:
                return _name_at(attr.nest, data[at + 4 : at + length], offset - at - 4) or attr.name
            return attr.name if attr else None
        at += (length + 3) & ~3
    return None
