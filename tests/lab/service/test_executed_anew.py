"""SIGTERM while the service executes itself anew, for an upgrade: it ends, whenever the signal comes."""

import os
import re
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.helpers import Napctl, machine_of, until
from tests.lab.ports import free_port
from tests.lab.service.services import policy_of, scraped, serving

pytestmark = pytest.mark.lab

SLOWLY = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=execve", "-e", "inject=execve:delay_enter=2000000"]
"""Two seconds between the last instruction of the one and the first of the other."""


def test_sigterm_between_the_end_of_one_and_the_begin_of_the_next_is_heard_by_the_next(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before = machine_of(lab.server)
    with serving(napctl, policy_of(tmp_path, server.pid), under=SLOWLY) as it:
        it.told("attached memcached")
        pid, began = it.pid, time.time()
        os.kill(pid, signal.SIGUSR2)
        until(lambda: blocks(pid, signal.SIGTERM), "it to execute itself anew")
        os.kill(pid, signal.SIGTERM)
        it.told("took over memcached", since=began)
        assert it.ended() == 0
        assert it.since()[-1] == "stopped: all is put back"
    assert machine_of(lab.server) == before


@pytest.mark.parametrize("delay_s", [0.02, 0.1, 0.2, 0.4])
def test_sigterm_while_it_makes_ready_for_that_is_heard_as_well(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path, delay_s: float
) -> None:
    """It waits for its last scrape to be answered, half a second at most."""
    before = machine_of(lab.server)
    port = free_port()
    policy = policy_of(tmp_path, server.pid, service=f'metrics = "127.0.0.1:{port}"')
    with serving(napctl, policy) as it:
        it.told("attached memcached")
        until(lambda: is_served(port), "metrics")
        os.kill(it.pid, signal.SIGUSR2)
        time.sleep(delay_s)
        os.kill(it.pid, signal.SIGTERM)
        assert it.ended() == 0
        assert it.since()[-1] == "stopped: all is put back"
    assert machine_of(lab.server) == before


def is_served(port: int) -> bool:
    with suppress(OSError):
        return bool(scraped(port))
    return False


def blocks(pid: int, number: signal.Signals) -> bool:
    """Whether its first thread holds that signal back."""
    (mask,) = re.findall(r"^SigBlk:\s+([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(mask, 16) >> (number - 1) & 1)
