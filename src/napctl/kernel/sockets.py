"""Sockets, through a descriptor: how their packets come, who shares their port, how they busy poll (socket(7))."""

import ctypes
import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Literal

from napctl.model.settings import SocketPolling

__all__ = [
    "IPPROTO_MPTCP",
    "Kind",
    "SocketFacts",
    "facts",
    "host_and_port",
    "incoming_napi_id",
    "ip_address",
    "is_stream",
    "is_xdp",
    "netns_cookie",
    "polling",
    "set_polling",
    "steer_by_queue",
    "stop_steering",
]


SOL_SOCKET = 1
SO_TYPE, SO_REUSEPORT, SO_ACCEPTCONN, SO_PROTOCOL, SO_DOMAIN = 3, 15, 30, 38, 39
SO_BUSY_POLL, SO_INCOMING_NAPI_ID, SO_PREFER_BUSY_POLL, SO_BUSY_POLL_BUDGET = 46, 56, 69, 70
SO_ATTACH_REUSEPORT_CBPF, SO_DETACH_REUSEPORT_BPF, SO_NETNS_COOKIE = 51, 68, 71
AF_XDP, IPPROTO_MPTCP = 44, 262
MAPPED = bytes(10) + b"\xff\xff"
"""Before an IPv4 address, in IPv6."""

# Classic BPF (include/uapi/linux/filter.h, bpf_common.h).
LOAD_WORD, MODULO, RETURN_A = 0x20, 0x94, 0x16
SKF_AD_OFF, SKF_AD_QUEUE = -0x1000, 24

_libc = ctypes.CDLL(None, use_errno=True)
Kind = Literal["tcp", "udp", "xdp", "other"]


@dataclass(frozen=True)
class SocketFacts:
    """What one socket is. `address`: what it is bound to, as the kernel has it; sockets that share it are one group."""

    kind: Kind
    listening: bool
    connected: bool
    reuseport: bool
    address: bytes
    protocol: int = 0
    """IPPROTO_TCP, IPPROTO_MPTCP …"""
    peer: bytes = b""
    """Address of the other end, if it is connected."""


def incoming_napi_id(socket_fd: int) -> int | None:
    """Id of the NAPI instance that received the socket's last packet (Linux 4.12, commit 6d4339028b35).

    None if there is none: nothing received yet, or received without a NAPI instance, as on loopback. Raises OSError
    (ENOTSOCK) if the descriptor is no socket. (socket.socket(fileno=…) would need four system calls more.)
    """
    return _option(socket_fd, SO_INCOMING_NAPI_ID) or None


def is_stream(socket_fd: int) -> bool:
    """Whether it is a connection, with one peer, rather than datagrams. Raises as incoming_napi_id()."""
    return _option(socket_fd, SO_TYPE) == socket.SOCK_STREAM


def facts(socket_fd: int) -> SocketFacts:
    """What a socket is. Raises OSError (ENOTSOCK) if the descriptor is no socket."""
    domain, type_ = _option(socket_fd, SO_DOMAIN), _option(socket_fd, SO_TYPE)
    if domain == AF_XDP:
        return SocketFacts("xdp", listening=False, connected=False, reuseport=False, address=b"")
    if domain not in (socket.AF_INET, socket.AF_INET6):
        return SocketFacts("other", listening=False, connected=False, reuseport=False, address=b"")
    kinds: dict[int, Kind] = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}
    peer = _name(_libc.getpeername, socket_fd)
    return SocketFacts(
        kind=kinds.get(type_, "other"),
        listening=bool(_option(socket_fd, SO_ACCEPTCONN)),
        connected=peer is not None,
        reuseport=bool(_option(socket_fd, SO_REUSEPORT)),
        address=_name(_libc.getsockname, socket_fd) or b"",
        protocol=_option(socket_fd, SO_PROTOCOL),
        peer=peer or b"",
    )


def is_xdp(socket_fd: int) -> bool:
    """Whether it is one of AF_XDP. Raises as incoming_napi_id()."""
    return _option(socket_fd, SO_DOMAIN) == AF_XDP


def netns_cookie(socket_fd: int) -> int:
    """The cookie of its network namespace, as NetworkNamespace has it. Raises OSError."""
    value, size = ctypes.c_uint64(), ctypes.c_uint32(8)
    if _libc.getsockopt(socket_fd, SOL_SOCKET, SO_NETNS_COOKIE, ctypes.byref(value), ctypes.byref(size)):
        raise _failure()
    return value.value


def ip_address(address: bytes) -> tuple[int, bytes]:
    """Family and address of a struct sockaddr_in or sockaddr_in6, IPv4 in IPv6 as IPv4; (…, b"") for another one."""
    family, host = _family_and_host(address)
    return (int(socket.AF_INET), host[12:]) if host.startswith(MAPPED) else (family, host)


def _family_and_host(address: bytes) -> tuple[int, bytes]:
    family = int.from_bytes(address[:2], sys.byteorder)
    host = {int(socket.AF_INET): address[4:8], int(socket.AF_INET6): address[8:24]}.get(family, b"")
    return family, host


def host_and_port(address: bytes) -> tuple[str, int]:
    """What a struct sockaddr_in or sockaddr_in6 says; ("?", 0) for another one."""
    family, host = _family_and_host(address)
    if len(host) not in (4, 16):
        return "?", 0
    return socket.inet_ntop(family, host), int.from_bytes(address[2:4], "big")


def polling(socket_fd: int) -> SocketPolling:
    """How its reads busy poll."""
    return SocketPolling(
        busy_poll_usecs=_option(socket_fd, SO_BUSY_POLL), prefer_busy_poll=bool(_option(socket_fd, SO_PREFER_BUSY_POLL))
    )


def set_polling(socket_fd: int, wanted: SocketPolling, budget: int) -> None:
    """Set it. `budget`: packets one busy poll may take, 0 for the kernel's default of 8, which cannot be read back
    (sk_getsockopt() in net/core/sock.c). Raises OSError: EPERM without CAP_NET_ADMIN.
    """
    _set(socket_fd, SO_PREFER_BUSY_POLL, wanted.prefer_busy_poll)
    _set(socket_fd, SO_BUSY_POLL_BUDGET, budget)
    _set(socket_fd, SO_BUSY_POLL, wanted.busy_poll_usecs)


def steer_by_queue(socket_fd: int, members: int) -> None:
    """Let the SO_REUSEPORT group of this socket give what one RX queue received to one member, q mod `members`.

    A classic BPF program (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5, socket(7)); it replaces one that is there. q is
    skb->queue_mapping: 1 and on where the driver records its queue (skb_record_rx_queue() in include/linux/skbuff.h),
    0 and on where it is still the sender's, as with veth. Taking 1 off would give two queues to one member there.
    Raises OSError: EINVAL if the socket is in no group.
    """
    program = (
        (LOAD_WORD, 0, 0, SKF_AD_OFF + SKF_AD_QUEUE & 0xFFFFFFFF),
        (MODULO, 0, 0, members),
        (RETURN_A, 0, 0, 0),
    )
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    _set_raw(socket_fd, SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", len(program), ctypes.addressof(buffer)))


def stop_steering(socket_fd: int) -> None:
    """Remove the program of its SO_REUSEPORT group (Linux 5.3): the kernel spreads by hash again.

    Raises OSError: ENOENT if there is none.
    """
    _set(socket_fd, SO_DETACH_REUSEPORT_BPF, 0)


def _option(socket_fd: int, name: int) -> int:
    value, size = ctypes.c_uint32(), ctypes.c_uint32(4)
    if _libc.getsockopt(socket_fd, SOL_SOCKET, name, ctypes.byref(value), ctypes.byref(size)):
        raise _failure()
    return value.value


def _name(call: object, socket_fd: int) -> bytes | None:
    buffer, size = ctypes.create_string_buffer(128), ctypes.c_uint32(128)
    if call(socket_fd, buffer, ctypes.byref(size)):  # type: ignore[operator] # a function of libc
        return None
    return buffer.raw[: size.value]


def _set(socket_fd: int, name: int, value: int) -> None:
    _set_raw(socket_fd, name, struct.pack("=i", value))


def _set_raw(socket_fd: int, name: int, value: bytes) -> None:
    if _libc.setsockopt(socket_fd, SOL_SOCKET, name, value, len(value)):
        raise _failure()


def _failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
