"""Asking a program about itself through the Unix socket that it offers, bounded in time and size.

Whoever listens there may be anybody: an answer counts only if the kernel says (SO_PEERCRED, unix(7)) that the process
that listens is the one that is asked about, and says something about that process alone. What hangs, talks garbage,
never ends, belongs to somebody else or to nobody any more is one line.
"""

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from napctl.kernel.processes import PROC
from napctl.kernel.syscalls import open_in_root
from napctl.model.text import printable

__all__ = ["Conversation", "Unanswered", "ask_cli", "ask_unixctl", "dpdk_conversation", "listener"]


PATIENCE_SECONDS = 0.5
"""For all questions of one conversation: DPDK answers one in 15 … 165 µs (measured), Open vSwitch in some ms."""
MOST_BYTES = 1 << 20
DPDK_MOST_BYTES = 1 << 17
"""A message has at most 16 KiB, and says so itself: MAX_OUTPUT_LEN in DPDK's lib/telemetry/telemetry.c."""
MOST_TOLD = 60
"""Of what somebody else's answer says, in a line of ours."""
IAC, SUBNEGOTIATION, END, TERMINAL_TYPE = 255, 250, 240, 24
"""RFC 854, RFC 1091."""
T = TypeVar("T")


class Unanswered(Exception):
    """Why there is no answer: one line, without the socket's name."""


@contextmanager
def _connected(path: str, kind: socket.SocketKind, pid: int | None, deadline: float) -> Iterator[socket.socket]:
    """`path`: as process `pid` sees it, which has to listen there; None: as we do, and anybody. Raises Unanswered."""
    place = _place(path, os.getpid() if pid is None else pid)
    with socket.socket(socket.AF_UNIX, kind) as peer:
        try:
            peer.settimeout(_left(deadline))
            peer.connect(f"/proc/self/fd/{place}")
        except OSError as error:
            raise Unanswered(_why(error, os.fstat(place).st_uid)) from None
        finally:
            os.close(place)
        listener, uid, _ = struct.unpack("=iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if pid is not None and listener != pid:
            raise Unanswered(f"process {listener} of user {uid} listens there, and not this one")
        yield peer


def _place(path: str, pid: int) -> int:
    """A descriptor of the socket's file. The process may have a root directory of its own, and links in it."""
    try:
        root = os.open(PROC / str(pid) / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return open_in_root(root, path, os.O_PATH | os.O_CLOEXEC)
        finally:
            os.close(root)
    except OSError as error:
        raise Unanswered(error.strerror or str(error)) from None


def _why(error: OSError, owner: int) -> str:
    if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
        return "it takes no connection (it hangs)"
    if isinstance(error, PermissionError):
        return f"it belongs to user {owner}: be root"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there: its process has ended"
    return error.strerror or str(error)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise Unanswered(f"no answer within {PATIENCE_SECONDS:g} s (it hangs)")
    return left


def _received(peer: socket.socket, most: int, deadline: float) -> bytes:
    """One piece. Raises Unanswered."""
    peer.settimeout(_left(deadline))
    try:
        return peer.recv(most)
    except TimeoutError:
        raise Unanswered(f"no answer within {PATIENCE_SECONDS:g} s (it hangs)") from None
    except OSError as error:
        raise Unanswered(error.strerror or str(error)) from None


def _message(peer: socket.socket, deadline: float) -> bytes:
    """One of DPDK's. Raises Unanswered."""
    data = _received(peer, DPDK_MOST_BYTES, deadline)
    if not data:
        raise Unanswered("it hangs up without a word")
    return data


def _send(peer: socket.socket, data: bytes, deadline: float) -> None:
    peer.settimeout(_left(deadline))
    try:
        peer.sendall(data)
    except TimeoutError:
        raise Unanswered(f"no answer within {PATIENCE_SECONDS:g} s (it hangs)") from None
    except OSError as error:
        raise Unanswered(error.strerror or str(error)) from None


def _parsed(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        told = printable(data[:MOST_TOLD].decode(errors="replace"))
        raise Unanswered(f"it answers what cannot be read: {told}") from None


class Greeting(msgspec.Struct, frozen=True):
    """The first message of DPDK's telemetry (https://doc.dpdk.org/guides/howto/telemetry.html)."""

    version: str
    pid: int
    """In its own PID namespace."""
    max_output_len: int


class Conversation:
    """An open connection to DPDK's telemetry, version 2: a message for a question, a message for its answer."""

    def __init__(self, peer: socket.socket, deadline: float):
        self._peer, self._deadline = peer, deadline
        self.greeting = _parsed(_message(peer, deadline), Greeting)

    def ask(self, question: str, kind: type[T]) -> T | None:
        """The answer; None if it knows no such question, or has nothing to say. Raises Unanswered."""
        _send(self._peer, question.encode(), self._deadline)
        answer = _parsed(_message(self._peer, self._deadline), dict[str, msgspec.Raw])
        told = answer.get(question.partition(",")[0])
        if told is None or len(answer) != 1:
            raise Unanswered("it answers another question than it was asked")
        return None if bytes(told) == b"null" else _parsed(bytes(told), kind)


@contextmanager
def dpdk_conversation(path: str, pid: int) -> Iterator[Conversation]:
    """Raises Unanswered, also from within."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with _connected(path, socket.SOCK_SEQPACKET, pid, deadline) as peer:
        yield Conversation(peer, deadline)


def ask_unixctl(path: str, pid: int, method: str) -> str:
    """What `ovs-appctl METHOD` prints: JSON-RPC 1.0, RFC 4627, over a stream (unixctl.py of Open vSwitch).

    Raises Unanswered.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    with _connected(path, socket.SOCK_STREAM, pid, deadline) as peer:
        _send(peer, json.dumps({"id": 0, "method": method, "params": []}).encode(), deadline)
        reply = _until(peer, deadline, _whole_json)
    result, wrong = reply.get("result"), reply.get("error")
    if wrong is not None or not isinstance(result, str):
        raise Unanswered(f"it refuses {method}: {printable(str(wrong))[:MOST_TOLD]}")
    return result


def _whole_json(data: bytes) -> dict[str, Any] | None:
    """The object, once it has come whole. Nothing follows it: there was one question."""
    if not data.lstrip().startswith(b"{"):
        _parsed(data, dict)
    if not data.rstrip().endswith(b"}"):
        return None
    try:
        return dict(msgspec.json.decode(data, type=dict))
    except (ValueError, msgspec.MsgspecError):
        return None  # a brace within it
    except RecursionError:
        raise Unanswered("it answers what cannot be read") from None


def ask_cli(path: str, pid: int, command: str) -> str:
    """What `vppctl COMMAND` prints. VPP's CLI speaks telnet and asks for the terminal's type; "vppctl" makes it print
    neither prompt nor echo, and end each answer with a NUL (src/vpp/app/vppctl.c, unix_cli_process_telnet() in
    src/vlib/unix/cli.c). Raises Unanswered.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    type_told = bytes((IAC, SUBNEGOTIATION, TERMINAL_TYPE, 0)) + b"vppctl" + bytes((IAC, END))
    with _connected(path, socket.SOCK_STREAM, pid, deadline) as peer:
        _until(peer, deadline, lambda data: data if bytes((IAC, SUBNEGOTIATION, TERMINAL_TYPE)) in data else None)
        _send(peer, type_told + command.encode() + b"\n\0", deadline)
        text = _until(peer, deadline, _ended)
    return text.decode(errors="replace").replace("\r", "")


def _ended(data: bytes) -> bytes | None:
    """What stands before the NUL that follows the answer; the greeting's own comes first, with nothing before it."""
    text = _without_telnet(data)
    for part in text.split(b"\0")[:-1]:
        if part.strip():
            return part
    return None


def _without_telnet(data: bytes) -> bytes:
    """Without the commands of RFC 854."""
    kept, at = bytearray(), 0
    while at < len(data):
        if data[at] != IAC:
            kept.append(data[at])
            at += 1
        elif data[at + 1 : at + 2] == bytes((SUBNEGOTIATION,)):
            end = data.find(bytes((IAC, END)), at)
            at = len(data) if end < 0 else end + 2
        else:
            at += 3
    return bytes(kept)


def _until(peer: socket.socket, deadline: float, whole: Callable[[bytes], T | None]) -> T:
    """Read until it is whole. Raises Unanswered."""
    data = b""
    while True:
        piece = _received(peer, 1 << 16, deadline)
        if not piece:
            raise Unanswered(f"it hangs up after {len(data)} bytes" if data else "it hangs up without a word")
        data += piece
        if (found := whole(data)) is not None:
            return found
        if len(data) > MOST_BYTES:
            raise Unanswered(f"its answer does not end after {len(data)} bytes")


def listener(path: str) -> int:
    """Who listens on a telemetry socket of DPDK, by the kernel. Raises Unanswered."""
    with _connected(path, socket.SOCK_SEQPACKET, None, time.monotonic() + PATIENCE_SECONDS) as peer:
        return int(struct.unpack("=iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
