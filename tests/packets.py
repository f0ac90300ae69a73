"""Packets as they come off the wire, byte by byte; without checksums, which XDP programs do not look at."""

import socket
import struct

BROADCAST = b"\xff" * 6
PEER = bytes.fromhex("020000000002")
TCP, UDP = 6, 17
SYN = 2


def ethernet(to: bytes, kind: int, payload: bytes, *, tags: int = 0) -> bytes:
    """A frame, with so many VLAN tags, as long as Ethernet wants it at the least."""
    tagged = b"".join(struct.pack("!HH", 0x8100, 5) for _ in range(tags))
    return (to + PEER + tagged + struct.pack("!H", kind) + payload).ljust(64, b"\0")


def arp_request(asked: str, *, asking: str = "10.199.0.2") -> bytes:
    """Who has that address?"""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return head + PEER + socket.inet_aton(asking) + bytes(6) + socket.inet_aton(asked)


def ipv4(
    to: str, protocol: int, payload: bytes, *, came: str = "10.199.0.2", fragment: int = 0, options: int = 0
) -> bytes:
    """`fragment`: flags and offset; `options`: words of them."""
    length = 20 + 4 * options + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45 + options, 0, length, 1, fragment, 64, protocol, 0)
    return head + socket.inet_aton(came) + socket.inet_aton(to) + bytes([1]) * (4 * options) + payload


def ipv6(to: str, protocol: int, payload: bytes, *, came: str = "fd00::2") -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255)
    return head + socket.inet_pton(socket.AF_INET6, came) + socket.inet_pton(socket.AF_INET6, to) + payload


def udp(port: int, *, source: int = 40_000) -> bytes:
    return struct.pack("!HHHH", source, port, 12, 0) + b"data"


def tcp(port: int, *, source: int = 40_000, flags: int = SYN) -> bytes:
    return struct.pack("!HHIIBBHHH", source, port, 1, 0, 5 << 4, flags, 1024, 0, 0)


def solicitation(target: str) -> bytes:
    """ICMPv6 neighbour solicitation."""
    return struct.pack("!BBHI", 135, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, target)
