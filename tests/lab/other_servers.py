"""Servers that only the tests need: caddy, small services in Python; and what a test asks of them."""

import socket
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from napctl.lab.bed import Lab
from napctl.lab.children import require
from napctl.lab.servers import Server, accepts, serve
from napctl.lab.webservers import have_epoll, with_directory

ROOT = Path(__file__).parents[2]
CADDY_PORT = 8081
WEB_PORT = 8083
ECHO_PORT = 7777
LOOPS_PORT = 8085
AGAIN_S = 2.0
"""Until a datagram is taken for lost."""

SEND = """
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(0.05)
one.connect((sys.argv[1], int(sys.argv[2])))
while True:
    for _ in range(int(sys.argv[3])):
        one.send(b"x")
    try:
        for _ in range(int(sys.argv[3])):
            one.recv(100)
    except OSError:
        pass
"""

CADDYFILE = """
{{
    admin off
    auto_https off
}}
http://{address}:{port} {{
    bind {address}
    respond "hello"
}}
"""


def caddy(lab: Lab, *, port: int = CADDY_PORT, cpus: Collection[int] = ()) -> Server:
    """Caddy: one Go process, whose runtime has one epoll instance for all its threads."""
    require("caddy")

    def begin(directory: Path) -> Server:
        path = directory / "Caddyfile"
        path.write_text(CADDYFILE.format(address=lab.server.address, port=port))
        places = [f"{name}={directory}" for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")]
        command = ["env", *places, "caddy", "run", "--adapter", "caddyfile", "--config", str(path)]
        return serve(lab, command, port, cpus=cpus)

    return with_directory(begin)


def web(
    lab: Lab,
    *,
    uvloop: bool = False,
    workers: int = 0,
    port: int = WEB_PORT,
    cpus: Collection[int] = (),
) -> Server:
    """services/web.py: an HTTP service on asyncio or uvloop, in one process or in forked workers, which all listen."""
    options = ["--workers", str(workers), *(["--uvloop"] if uvloop else [])]

    def ready(lab: Lab, server: Server) -> bool:
        return bound(server, "tcp") == max(workers, 1) and accepts(lab, server)

    return _service(lab, "web", port, options, cpus, ready, forks=workers > 0)


def echo(
    lab: Lab,
    *,
    wait_in: Literal["epoll", "recv", "poll"] = "epoll",
    workers: int = 0,
    port: int = ECHO_PORT,
    cpus: Collection[int] = (),
) -> Server:
    """services/echo.py: a UDP echo that waits in asyncio's epoll, in recv() or in poll(); all its sockets are bound."""
    options = ["--workers", str(workers), "--wait-in", wait_in]

    def ready(lab: Lab, server: Server) -> bool:
        serving = server.workers or [server.pid]
        return bound(server, "udp") == len(serving) == max(workers, 1) and (wait_in != "epoll" or have_epoll(serving))

    return _service(lab, "echo", port, options, cpus, ready, forks=workers > 0)


def loops(lab: Lab, *kinds: str, port: int = LOOPS_PORT) -> Server:
    """services/loops.py: HTTP, by a process for each of these kinds of loop (one alone: without a master)."""
    several = len(kinds) > 1

    def ready(lab: Lab, server: Server) -> bool:
        serving = server.workers if several else [server.pid]
        listening = 1 if "shared" in kinds else len(kinds)
        return len(serving) == len(kinds) and bound(server, "tcp") == listening and have_epoll(serving)

    return _service(lab, "loops", port, list(kinds), (), ready, forks=several)


def bound(server: Server, protocol: Literal["tcp", "udp"]) -> int:
    """How many listening TCP sockets, or UDP sockets, its namespace has on its port."""
    unconnected = {"tcp": "0A", "udp": "07"}[protocol]  # TCP_LISTEN, TCP_CLOSE in include/net/tcp_states.h
    found = 0
    with suppress(OSError):  # it has ended
        for line in Path(f"/proc/{server.pid}/net/{protocol}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            found += local.endswith(f":{server.port:04X}") and state == unconnected
    return found


def echoed(lab: Lab, server: Server, datagrams: int, *, patience_s: float = 30) -> int:
    """Send that many datagrams to an echo, each from a port of its own and each waited for; how many came back.

    On a busy machine one of the first in a new lab may be lost: the first is sent again, the others are not.
    """
    answered, deadline = 0, time.monotonic() + patience_s
    for number in range(datagrams):
        with lab.client.namespace.entered():
            here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with here:
            here.settimeout(patience_s if number else min(patience_s, AGAIN_S))
            here.connect((server.address, server.port))
            came = _echoes(here, b"%d" % number)
            while not (came or number) and time.monotonic() < deadline:
                came = _echoes(here, b"%d" % number)
            answered += came
    return answered


def _echoes(here: socket.socket, word: bytes) -> bool:
    with suppress(TimeoutError):
        here.send(word)
        return here.recv(100) == word
    return False


@contextmanager
def datagrams(lab: Lab, server: Server, at_once: int = 1) -> Iterator[None]:
    """As many as come back from an echo, that many after the other, until the block is left."""
    process = lab.client.start([sys.executable, "-c", SEND, server.address, str(server.port), str(at_once)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _service(
    lab: Lab,
    name: str,
    port: int,
    options: list[str],
    cpus: Collection[int],
    ready: Callable[[Lab, Server], bool],
    *,
    forks: bool,
) -> Server:
    module = [sys.executable, "-m", f"tests.lab.services.{name}"]
    command = ["env", f"PYTHONPATH={ROOT}", *module, lab.server.address, str(port), *options]
    return serve(lab, command, port, forks=forks, cpus=cpus, ready=ready, patience_s=60)


def python_server(lab: Lab, code: str, *, port: int = 11300) -> Server:
    """A program that serves at the address and port that it is given."""
    return serve(lab, [sys.executable, "-c", textwrap.dedent(code), lab.server.address, str(port)], port)
