"""What the tests of `compare` share: short cells, loads that hold a connection, and the cells of a run."""

import os
from pathlib import Path

from napctl.experiment.run_directory import RunDirectory
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.experiment import Cell

QUICK = ("--seconds", 0.4, "--warmup", 0, "--settle", 0)
GREETING = "regex:requests_per_second=rate (\\S+)"


def from_client(lab: Lab, command: str) -> str:
    """A load command that runs in the client's network namespace."""
    return f"nsenter --net=/proc/{os.getpid()}/fd/{lab.client.namespace.fd} {command}"


def holding(lab: Lab, web: Server, seconds: float = 0.5) -> str:
    """A load command that holds one connection open for a while, and tells no figures."""
    request = "GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
    script = f'exec 3<>/dev/tcp/{web.address}/{web.port}; printf "{request}" >&3; sleep {seconds}'
    return from_client(lab, f"bash -c '{script}'")


def cells(run: Path) -> tuple[Cell, ...]:
    return RunDirectory(run).cells()
