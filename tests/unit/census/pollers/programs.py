"""Listeners on Unix sockets for the tests of telemetry: each connection is served by a function, in a thread."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.meanwhile import again_and_again

Serve = Callable[[socket.socket], None]


@contextmanager
def listening(path: Path, kind: socket.SocketKind, serve: Serve, connections: int = 8) -> Iterator[str]:
    """`serve` one connection after the other, in the process of the test; its errors are those of a peer that left."""
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(os.fspath(path))
        listener.listen(connections)
        listener.settimeout(0.02)

        def serve_one() -> None:
            with suppress(TimeoutError, OSError), listener.accept()[0] as peer:
                peer.settimeout(5)
                serve(peer)

        with again_and_again(serve_one, 0):
            yield os.fspath(path)


GREETING = b'{"version":"DPDK 24.11.3","pid":1,"max_output_len":16384}'


def dpdk(answers: dict[str, bytes]) -> Serve:
    """A DPDK that gives these answers, and null to other questions, as unknown_command() in lib/telemetry does."""

    def serve(peer: socket.socket) -> None:
        peer.send(GREETING)
        while question := peer.recv(1024).decode():
            name = question.partition(",")[0]
            peer.send(b'{"%s":%s}' % (name.encode(), answers.get(question, b"null")))

    return serve


def always(data: bytes) -> Serve:
    """Says that, and then waits for the end."""

    def serve(peer: socket.socket) -> None:
        peer.sendall(data)
        while peer.recv(1024):
            pass

    return serve
