"""A thousand processes of one name: each command answers soon, within few descriptors, in few lines."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from napctl.kernel.links import links
from napctl.lab.bed import Lab
from tests.lab.helpers import Napctl, Ran, at_server, state_of, until

pytestmark = pytest.mark.lab

SERVICE = Path(__file__).parents[1] / "services" / "thousand.py"
FEW_DESCRIPTORS = 128
SOON_S = 20
"""On two cores that others use, too; alone the longest takes 5 s."""


@contextmanager
def workers(lab: Lab, count: int) -> Iterator[int]:
    """So many; their parent's pid. Each is fed by the device's NAPI instance."""
    with lab.client.namespace.entered(), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind((lab.client.address, 0))
        with lab.server.namespace.entered():
            command = [sys.executable, SERVICE, count, lab.server.address, lab.client.address, client.getsockname()[1]]
            service = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with service:
            try:
                assert service.stdout
                ports = service.stdout.readline().split()
                for first in range(0, count, 100):  # a veth's ring is short
                    for port in ports[first : first + 100]:
                        client.sendto(b"x", (lab.server.address, int(port)))
                    until(partial(have_come, lab, min(first + 100, count)), "datagrams")
                yield service.pid
            finally:
                service.kill()


def have_come(lab: Lab, count: int) -> bool:
    """Whether so many packets have come to the server's device, which was silent before."""
    return sum(each.rx_packets for each in links(lab.server.namespace) if each.name == lab.server.device) >= count


@pytest.fixture
def soon(napctl: Napctl) -> Callable[..., Ran]:
    def run(*arguments: object) -> Ran:
        start = time.monotonic()
        under = ["prlimit", f"--nofile={FEW_DESCRIPTORS}"]
        done = napctl(*arguments, under=under, timeout_s=60)
        assert time.monotonic() - start < SOON_S, arguments
        assert "Too many open files" not in done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.mark.trials
def test_they_are_looked_at_judged_attached_and_detached(
    lab: Lab, napctl: Napctl, soon: Callable[..., Ran], trials: Callable[[int, int], int]
) -> None:
    before, count = state_of(lab.server), trials(250, 1000)
    with workers(lab, count) as pid:
        dry = soon("attach", pid, "--dry-run")
        assert f"{pid}: {count + 1} processes" in dry.stdout
        done = soon("attach", pid, "--window", 0, "--defer-us", 200)
        assert done.status == 0, done
        (row,) = (line for line in done.stdout.splitlines() if "prefer_busy_poll" in line)
        assert row.split() == [f"{count:,}", *["epoll", "instances", "of", "thousand", "prefer_busy_poll", "no", "yes"]]
        (poller,) = (line for line in soon("status", *at_server(lab)).stdout.splitlines() if "thousand" in line)
        assert f" and {count - 1} more " in poller
        assert soon("doctor", "--seconds", 0.1, *at_server(lab)).status in (0, 1)
        detached = soon("detach", pid)
        assert detached.status == 0, detached
        assert max(len(each.stdout.splitlines()) for each in (dry, done, detached)) < 50
    assert napctl.live() == []
    assert state_of(lab.server) == before
