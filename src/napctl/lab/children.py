"""Processes that die with this one, also when it is killed, and not later than the lab they were started in."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import Unsupported

__all__ = ["Children", "require"]


PACKAGES = {
    "caddy": "caddy",
    "cc": "gcc libc6-dev",
    "ethtool": "ethtool",
    "haproxy": "haproxy",
    "ip": "iproute2",
    "memcached": "memcached",
    "nft": "nftables",
    "nginx": "nginx",
    "redis-server": "redis-server",
    "setpriv": "util-linux",
    "setsid": "util-linux",
    "taskset": "util-linux",
    "unshare": "util-linux",
}
"""Debian's packages of the tools that the lab runs."""

PATIENCE_S = 2.0

# The parent may have died between fork and the request to die with it; then nobody would send the signal.
ONLY_WITH_PARENT = '[ "$PPID" = "$0" ] && exec "$@"'


class Children:
    """Starts processes and ends, when it is closed, those that still run."""

    def __init__(self) -> None:
        # One thread starts them all: a child dies with the thread that started it (PR_SET_PDEATHSIG in prctl(2)).
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="napctl-lab")
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        command: Sequence[str],
        namespace: NetworkNamespace,
        cpu: int,
        user: str | None,
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        """Start a command in a network namespace, on one CPU, as `user` (None: as this process). Raises Unsupported."""
        for tool in ("setpriv", "taskset", command[0]):
            require(tool)
        identity = [f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"] if user else []
        guarded = ["sh", "-c", ONLY_WITH_PARENT, str(os.getpid()), *command]
        full = ["setpriv", *identity, "--pdeathsig=KILL", "taskset", "--cpu-list", str(cpu), *guarded]

        def start() -> subprocess.Popen[bytes]:
            with namespace.entered():
                return subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)

        process = self._starter.submit(start).result()
        self._started.append(process)
        return process

    def close(self) -> None:
        """Kill what still runs, and wait for its end."""
        running = [each for each in self._started if each.poll() is None]
        for each in running:
            each.kill()
        for each in running:
            with suppress(subprocess.TimeoutExpired):  # one that busy polls may not end at once
                each.wait(PATIENCE_S)
        self._starter.shutdown()


def require(tool: str) -> None:
    """Raises Unsupported, with the Debian package to install, if a tool is not in PATH."""
    if shutil.which(tool) is None:
        raise Unsupported(f"the lab needs '{tool}': apt-get install {PACKAGES.get(tool, tool)}")
