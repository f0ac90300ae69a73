"""nginx, haproxy and redis in the lab's server namespace: Debian's packages, unmodified, with files of their own."""

import subprocess
import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

from napctl.kernel.open_files import open_files
from napctl.lab.bed import Lab
from napctl.lab.children import require
from napctl.lab.servers import Server, accepts, connected, serve
from napctl.model.errors import NapctlError

__all__ = ["NGINX", "NGINX_PORT", "REPLY", "haproxy", "have_epoll", "nginx", "redis", "with_directory"]


NGINX_PORT = 8080
HAPROXY_PORT = 8082
REDIS_PORT = 6379
REPLY = "hello\\n"
"""What the web servers answer, as their configurations write it."""

# Connections stay open for a whole load. Paths that Debian's build would take from /var and /run are in the directory.
NGINX = """
daemon off;
user www-data;
worker_processes {workers};
worker_rlimit_nofile 8192;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000000;
    keepalive_time 24h;
    keepalive_timeout 1h;
    default_type text/plain;
    server {{
        listen {address}:{port}{reuseport};
        location / {{ return 200 "{reply}"; }}
    }}
}}
"""

HAPROXY = """
global
    nbthread {threads}
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend lab
    bind {address}:{port}{shards}
    http-request return status 200 content-type text/plain lf-string "{reply}"
"""


def nginx(
    lab: Lab,
    *,
    workers: int = 4,
    reuseport: bool = False,
    port: int = NGINX_PORT,
    cpus: Collection[int] = (),
    patience_s: float = 5.0,
) -> Server:
    """Start nginx, whose master runs as root and whose workers run as www-data; `pid` is the master's.

    The workers share one listening socket, or have one each with `reuseport` (all of them are open in all processes).
    `cpus` and `patience_s` as serve() has them. Raises Unsupported with the package to install, NapctlError if it does
    not start.
    """
    require("nginx")

    def begin(directory: Path) -> Server:
        text = NGINX.format(
            workers=workers,
            directory=directory,
            address=lab.server.address,
            port=port,
            reuseport=" reuseport" if reuseport else "",
            reply=REPLY,
        )
        command = ["nginx", "-c", _written(directory, text), "-p", str(directory), "-e", "stderr"]
        return serve(lab, command, port, forks=True, cpus=cpus, patience_s=patience_s, ready=_with_workers(workers))

    return with_directory(begin)


def haproxy(
    lab: Lab,
    *,
    threads: int = 4,
    shards: bool = False,
    port: int = HAPROXY_PORT,
    cpus: Collection[int] = (),
) -> Server:
    """Start haproxy as one process, as nobody, which answers by itself; each thread has an epoll instance.

    The threads share one listening socket, or have one each with `shards` (SO_REUSEPORT, "shards by-thread"). `cpus` as
    serve() has it. Raises Unsupported with the package to install, NapctlError if it does not start.
    """
    require("haproxy")

    def begin(directory: Path) -> Server:
        text = HAPROXY.format(
            threads=threads,
            address=lab.server.address,
            port=port,
            shards=" shards by-thread" if shards else "",
            reply=REPLY,
        )
        return serve(lab, ["haproxy", "-db", "-f", _written(directory, text)], port, user="nobody", cpus=cpus)

    return with_directory(begin)


def redis(lab: Lab, *, port: int = REDIS_PORT, value_bytes: int = 100, cpus: Collection[int] = ()) -> Server:
    """Start redis as nobody, in memory alone, and give it `key0`: what the load asks for.

    `cpus` as serve() has it. Raises Unsupported with the package to install, NapctlError if it does not start.
    """
    require("redis-server")
    options = {"bind": lab.server.address, "port": port, "protected-mode": "no", "save": "", "appendonly": "no"}
    command = ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    server = serve(lab, command, port, user="nobody", cpus=cpus)
    try:
        with connected(lab, port) as connection, connection.makefile("rb") as replies:
            connection.sendall(b"SET key0 %b\r\n" % (b"v" * value_bytes))
            if (reply := replies.readline()) != b"+OK\r\n":
                raise NapctlError(f"redis did not store key0: {reply.decode(errors='replace').strip()}")
    except (OSError, NapctlError):
        server.stop()
        raise
    return server


def with_directory(begin: Callable[[Path], Server]) -> Server:
    """A server with a directory for its files, readable by all, which goes when the server is stopped.

    It goes as well when napctl is killed. Raises what `begin` raises.
    """
    directory = Path(tempfile.mkdtemp(prefix="napctl-lab-"))
    # The pipe ends when it is closed, and with this process; in a session of its own Ctrl-C does not reach the sweeper.
    command = ["sh", "-c", 'read -r _; exec rm -rf -- "$0"', str(directory)]
    sweeper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    with ExitStack() as undo:
        undo.callback(sweeper.communicate)
        directory.chmod(0o755)
        server = begin(directory)
        server.afterwards.push(undo.pop_all())
    return server


def _written(directory: Path, text: str) -> str:
    """The path of the configuration."""
    path = directory / "configuration"
    path.write_text(text)
    path.chmod(0o644)
    return str(path)


def _with_workers(workers: int) -> Callable[[Lab, Server], bool]:
    """The master listens before it forks; a worker changes its user before it makes its epoll instance."""

    def ready(lab: Lab, server: Server) -> bool:
        return len(server.workers) == workers and have_epoll(server.workers) and accepts(lab, server)

    return ready


def have_epoll(pids: list[int]) -> bool:
    """Whether each of these processes has an epoll instance by now; not so if one is gone."""
    try:
        return all(open_files(pid).epolls for pid in pids)
    except (FileNotFoundError, ProcessLookupError):
        return False
