"""A TCP echo, as ssh is one: who types a letter, and waits for it; beside it protection, and a second device."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import End, Lab, join
from tests.lab.following import Following, ended_by
from tests.lab.helpers import Napctl, at_server, until

PORT = 2222
PAUSE_SECONDS = 0.01
"""Between an answer and the next letter."""
PATIENCE_SECONDS = 60.0
QUICK_MS = 100.0
"""Who types feels no wait."""
ECHOES = f"""
import socket, threading
def serve(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(100):
        connection.sendall(data)
listener = socket.create_server(("", {PORT}))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@contextmanager
def second_device(lab: Lab) -> Iterator[tuple[End, End]]:
    """Of the server, whose packets come to the same CPU, and its far end in a third namespace."""
    with NetworkNamespace.create() as beyond:
        near = replace(lab.server, device="server1", address="10.198.0.1")
        far = End("far", beyond, "far0", "10.198.0.2", lab.client.cpu, lab.client.children)
        join(near, far)
        yield near, far


@contextmanager
def protecting(lab: Lab, napctl: Napctl) -> Iterator[Following]:
    """`napctl protect`, once it watches the server's device."""
    started = napctl.start("protect", lab.server.device, *at_server(lab), "--json")
    with ended_by(signal.SIGINT, Following(started)) as it:
        it.told("napctl runs on CPU 0")
        time.sleep(0.6)
        yield it


@contextmanager
def echoing(lab: Lab) -> Iterator[None]:
    """On the server's CPU, at nice 0, in a session of its own (see udp_server())."""
    process = lab.server.start(["setsid", sys.executable, "-c", ECHOES])
    os.setpriority(os.PRIO_PROCESS, process.pid, 0)
    try:
        until(lambda: reached(lab.client, lab.server.address), "the echo")
        yield
    finally:
        process.kill()
        process.wait()


def reached(end: End, address: str) -> bool:
    with suppress(OSError):
        connected(end, address).close()
        return True
    return False


def connected(end: End, address: str) -> socket.socket:
    with end.namespace.entered():
        found = socket.create_connection((address, PORT), timeout=PATIENCE_SECONDS)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


@dataclass
class Typing:
    """Letters that were typed, one after the other."""

    seconds: list[float]
    """Until each came back; the last one may have come after the end."""
    failed: str = ""
    """Of the connection; empty: it stayed."""

    def percentile_ms(self, share: float) -> float:
        """That so many of them took at most."""
        assert self.seconds, self.failed
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))] * 1000

    def __str__(self) -> str:
        p50, p99 = self.percentile_ms(0.5), self.percentile_ms(0.99)
        most = max(self.seconds) * 1000
        return f"{len(self.seconds)} letters, p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {most:.0f} ms{self.failed}"


@contextmanager
def typing(end: End, address: str) -> Iterator[Typing]:
    """Over a connection that stood before, until the block is left and the last letter has come back."""
    found, over = Typing([]), threading.Event()
    with connected(end, address) as connection:

        def type_on() -> None:
            try:
                while not over.wait(PAUSE_SECONDS):
                    began = time.monotonic()
                    connection.sendall(b"x")
                    if connection.recv(1) != b"x":
                        raise ConnectionError("it was closed")
                    found.seconds.append(time.monotonic() - began)
            except OSError as error:
                found.failed = f"; {error}"

        thread = threading.Thread(target=type_on)
        thread.start()
        try:
            yield found
        finally:
            over.set()
            thread.join()
