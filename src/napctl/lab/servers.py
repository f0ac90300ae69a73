"""Real, unmodified servers in the lab's server namespace."""

import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO, Self

from napctl.lab.bed import Lab
from napctl.lab.children import require
from napctl.model.errors import BadInput, NapctlError

MEMCACHED_PORT = 11211


class Server:
    """A running server. Use as a context manager: leaving it ends the server, and only it."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, port: int):
        self.process = process
        self.address = address
        self.port = port

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def stop(self, patience_s: float = 2.0) -> None:
        """Ask it to end, wait, and kill it if it has not ended by then. Raises NapctlError if even that is in vain."""
        self.process.terminate()
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self._wait_for_the_kill(patience_s)

    def _wait_for_the_kill(self, patience_s: float) -> None:
        # A task that busy polls from epoll_wait looks at signals only when the poll has found something or its
        # busy_poll_usecs are over (ep_busy_loop in fs/eventpoll.c): until then not even SIGKILL ends it.
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise NapctlError(f"pid {self.pid} was killed and does not end: does it busy poll?") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def serve(lab: Lab, command: Sequence[str], port: int, *, user: str | None = None, patience_s: float = 5.0) -> Server:
    """Start a command in the server namespace, on the server's CPU, and wait until it accepts connections on `port`.

    Raises NapctlError, with the command's last words, if it ends or has not accepted within `patience_s`.
    """
    with tempfile.TemporaryFile() as words:
        process = lab.server.start(command, user=user, stdout=words, stderr=words)
        server = Server(process, lab.server.address, port)
        with ExitStack() as undo:
            undo.callback(server.stop)
            deadline = time.monotonic() + patience_s
            while not _accepts(lab, port):
                if process.poll() is not None:
                    raise NapctlError(f"{command[0]} ended at its start: {_last_line(words) or process.returncode}")
                if time.monotonic() > deadline:
                    raise NapctlError(f"{command[0]} does not accept connections on port {port}: {_last_line(words)}")
                time.sleep(0.01)
            undo.pop_all()
    return server


def memcached(lab: Lab, *, threads: int = 1, keys: int = 10, value_bytes: int = 100) -> Server:
    """Start memcached and load `key0`, `key1`, … with values of `value_bytes`: what the load asks for.

    Raises Unsupported with the package to install, NapctlError if it does not start.
    """
    require("memcached")
    if not 0 < value_bytes <= 1_000_000:
        raise BadInput(f"memcached takes values of 1 … 1000000 bytes, not {value_bytes}")
    # Started as nobody instead of with `-u nobody`: a change of user would cancel the request to die with napctl.
    address = f"{lab.server.address}:{MEMCACHED_PORT}"
    server = serve(lab, ["memcached", "-t", str(threads), "-l", address, "-U", "0"], MEMCACHED_PORT, user="nobody")
    try:
        _preload(lab, server.port, keys, value_bytes)
    except (OSError, NapctlError):
        server.stop()
        raise
    return server


def _preload(lab: Lab, port: int, keys: int, value_bytes: int) -> None:
    value = b"v" * value_bytes
    with _connected(lab, port) as connection, connection.makefile("rb") as replies:
        for number in range(keys):
            connection.sendall(b"set key%d 0 0 %d\r\n%b\r\n" % (number, value_bytes, value))
        for number in range(keys):
            if (reply := replies.readline()) != b"STORED\r\n":
                raise NapctlError(f"memcached did not store key{number}: {reply.decode(errors='replace').strip()}")


def _connected(lab: Lab, port: int) -> socket.socket:
    with lab.client.namespace.entered():  # a socket belongs to the namespace in which it was opened
        return socket.create_connection((lab.server.address, port), timeout=2)


def _accepts(lab: Lab, port: int) -> bool:
    try:
        _connected(lab, port).close()
    except OSError:
        return False
    return True


def _last_line(words: IO[bytes]) -> str:
    words.seek(0)
    lines = words.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
