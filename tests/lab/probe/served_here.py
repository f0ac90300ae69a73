"""Requests over loopback that the test serves itself, so that it knows how long they wait, and what is told of them."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from napctl.model.latency import LatencyHistogram, ProcessLatency
from napctl.probe.latency import LatencyProbe

PAUSE = 0.004
LEAST_NS = PAUSE * 1e9 * 0.93
"""What a histogram tells of a pause, at least: a bucket is an eighth wide, and samples count as spread over it."""


def of(probe: LatencyProbe, pid: int = 0) -> ProcessLatency:
    wanted = pid or os.getpid()
    return next((each for each in probe.read() if each.pid == wanted), ProcessLatency(pid=wanted))


def longest(histogram: LatencyHistogram) -> float:
    return histogram.percentile_ns(1.0) or 0.0


def least(histogram: LatencyHistogram) -> float:
    return histogram.percentile_ns(0.0) or 0.0


@contextmanager
def datagrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and a server that has read from it once."""
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        client.send(b"first")
        server.recv(10)
        yield client, server


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The same over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener, connection(listener) as (client, server):
        client.send(b"first")
        server.recv(10)
        yield client, server


@contextmanager
def connection(listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_connection(listener.getsockname()) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server, _ = listener.accept()
        with server:
            yield client, server
