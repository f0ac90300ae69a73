"""Real, unmodified servers in the lab's server namespace."""

import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Self

from napctl.lab.bed import Lab
from napctl.lab.children import require
from napctl.model.errors import BadInput, NapctlError

__all__ = ["MEMCACHED_PORT", "ForkingServer", "Server", "accepts", "children", "connected", "memcached", "serve"]


MEMCACHED_PORT = 11211

# The first process of a PID namespace: when it ends, the kernel kills the others. It ends with its parent, which dies
# with napctl (--kill-child; the parent may have gone before that was asked for: /proc is the machine's and tells), and
# with a server that ends of its own accord. A server that is killed it outlives, so that the workers do, as anywhere.
FIRST = """read -r _ _ _ parent _ </proc/self/stat; [ "$parent" = "$0" ] || exit
"$@" & wait "$!"; status=$?
[ "$status" -le 128 ] || sleep infinity
exit $status"""
IN_OWN_PIDS = ["sh", "-c", 'exec unshare --pid --fork --kill-child -- sh -c "$0" "$$" "$@"', FIRST]


class Server:
    """A running server. Use as a context manager: leaving it ends the server, and only it."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, port: int):
        self.process = process
        self.address = address
        self.port = port
        self.afterwards = ExitStack()
        """What is to be done when it has been stopped, such as removing its files."""

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        """Process ids of its children, by age; empty if it has none or was killed."""
        return children(self.pid)

    def stop(self, patience_s: float = 2.0) -> None:
        """Ask it to end, wait, and kill it if it has not ended by then. Raises NapctlError if even that is in vain."""
        self.process.terminate()
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self._wait_for_the_kill(patience_s)
        self.afterwards.close()

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


class ForkingServer(Server):
    """A server that forks, in a PID namespace of its own: it ends with all it has forked, and so it does with napctl.

    Its processes have ordinary pids as well, like all others; `pid` is that of the one that was started, the master.
    `process` is what holds the namespace: killing that kills all of it.
    """

    def __init__(self, process: subprocess.Popen[bytes], address: str, port: int, first: int, master: int):
        super().__init__(process, address, port)
        self._pid = master
        self._first = os.pidfd_open(first)
        self.afterwards.callback(os.close, self._first)
        try:
            self._master = os.pidfd_open(master)
        except OSError:
            self.afterwards.close()
            raise
        self.afterwards.callback(os.close, self._master)
        self._stopped = False

    @property
    def pid(self) -> int:
        """Process id of the master, as seen from outside."""
        return self._pid

    def stop(self, patience_s: float = 2.0) -> None:
        """Ask the master to end, wait, and kill all that is left. Raises NapctlError if even that is in vain."""
        if self._stopped:
            return
        _signal(self._master, signal.SIGTERM)
        _has_ended(self._master, patience_s)
        _signal(self._first, signal.SIGKILL)
        # The first process waits for the end of all others (zap_pid_ns_processes in kernel/pid_namespace.c).
        if not _has_ended(self._first, patience_s):
            raise NapctlError(f"pid {self.pid} and its workers were killed and do not end: do they busy poll?")
        self.process.wait()
        self._stopped = True
        self.afterwards.close()


def children(pid: int) -> list[int]:
    """Process ids of a process's children, by age; empty if it is gone."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def accepts(lab: Lab, server: Server) -> bool:
    """Whether it accepts a connection from the client namespace."""
    try:
        connected(lab, server.port, patience_s=2).close()
    except OSError:
        return False
    return True


def serve(
    lab: Lab,
    command: Sequence[str],
    port: int,
    *,
    user: str | None = None,
    patience_s: float = 20.0,
    forks: bool = False,
    cpus: Collection[int] = (),
    ready: Callable[[Lab, Server], bool] = accepts,
) -> Server:
    """Start a command in the server namespace and wait until it is `ready`: accepts connections on `port`.

    It runs on the server's CPU, or on `cpus`. One that `forks` gets a PID namespace of its own, so that its children
    end with it, and starts as this process. Raises NapctlError, with the command's last words, if it ends or is not
    ready within `patience_s`; Unsupported if a tool is missing.
    """
    if forks and user is not None:
        raise BadInput("a server that forks starts as this process, and changes its user itself")
    placed = ["taskset", "--cpu-list", ",".join(map(str, cpus)), *command] if cpus else [*command]
    if forks:
        require("unshare")
        require(command[0])
    with tempfile.TemporaryFile() as words, ExitStack() as undo:
        process = lab.server.start([*IN_OWN_PIDS, *placed] if forks else placed, user=user, stdout=words, stderr=words)
        undo.callback(process.wait)
        undo.callback(process.kill)
        deadline = time.monotonic() + patience_s
        server = None if forks else Server(process, lab.server.address, port)
        while server is None or not ready(lab, server):
            if process.poll() is not None:
                raise NapctlError(f"{command[0]} ended at its start: {_last_line(words) or process.returncode}")
            if time.monotonic() > deadline:
                raise NapctlError(f"{command[0]} does not accept connections on port {port}: {_last_line(words)}")
            time.sleep(0.01)
            if server is None and (server := _forking(lab, process, port)) is not None:
                undo.callback(server.afterwards.close)
        undo.pop_all()
    return server


def _forking(lab: Lab, process: subprocess.Popen[bytes], port: int) -> ForkingServer | None:
    """The server in the PID namespace that a process holds; None if it is not there yet or no longer."""
    for first in children(process.pid):
        for master in children(first):
            with suppress(ProcessLookupError):
                return ForkingServer(process, lab.server.address, port, first, master)
    return None


def _signal(pidfd: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _has_ended(pidfd: int, patience_s: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(patience_s * 1000))


def memcached(
    lab: Lab,
    *,
    threads: int = 1,
    napi_ids: int | None = None,
    keys: int = 10,
    value_bytes: int = 100,
) -> Server:
    """Start memcached and load `key0`, `key1`, … with values of `value_bytes`: what the load asks for.

    `napi_ids`: its --napi_ids, by which it gives a connection to a thread by NAPI id; at most as many as `threads`.
    Raises Unsupported with the package to install, NapctlError if it does not start.
    """
    require("memcached")
    if not 0 < value_bytes <= 1_000_000:
        raise BadInput(f"memcached takes values of 1 … 1000000 bytes, not {value_bytes}")
    # Started as nobody instead of with `-u nobody`: a change of user would cancel the request to die with napctl.
    address = f"{lab.server.address}:{MEMCACHED_PORT}"
    command = ["memcached", "-t", str(threads), "-l", address, "-U", "0"]
    if napi_ids is not None:
        command += ["-N", str(napi_ids)]
    server = serve(lab, command, MEMCACHED_PORT, user="nobody")
    try:
        _preload(lab, server.port, keys, value_bytes)
    except (OSError, NapctlError):
        server.stop()
        raise
    return server


def _preload(lab: Lab, port: int, keys: int, value_bytes: int) -> None:
    value = b"v" * value_bytes
    with connected(lab, port) as connection, connection.makefile("rb") as replies:
        for number in range(keys):
            connection.sendall(b"set key%d 0 0 %d\r\n%b\r\n" % (number, value_bytes, value))
        for number in range(keys):
            if (reply := replies.readline()) != b"STORED\r\n":
                raise NapctlError(f"memcached did not store key{number}: {reply.decode(errors='replace').strip()}")


def connected(lab: Lab, port: int, *, patience_s: float = 10.0) -> socket.socket:
    """A connection from the client namespace to the server's. Raises OSError."""
    with lab.client.namespace.entered():  # a socket belongs to the namespace in which it was opened
        return socket.create_connection((lab.server.address, port), timeout=patience_s)


def _last_line(words: IO[bytes]) -> str:
    words.seek(0)
    lines = words.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
