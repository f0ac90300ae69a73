"""Time in NET_RX softirqs: all of it, and what ran on top of chosen processes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from napctl.kernel.cpu_time import clock_seconds
from napctl.probe.softirq_time import NetRxTime, SoftirqTimeProbe
from tests.lab.helpers import free_pid

pytestmark = pytest.mark.lab

SENDER = """
import socket
sender, receiver = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
receiver.bind(("127.0.0.1", 0))
print(flush=True)
input()
for _ in range(20_000):
    sender.sendto(b"x", receiver.getsockname())
print(flush=True)
input()
"""


@contextmanager
def sender() -> Iterator["subprocess.Popen[str]"]:
    """Over loopback: the softirq that takes in a datagram runs on top of who sent it."""
    command = [sys.executable, "-c", SENDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        turn(process, asked=False)
        yield process
        process.kill()


def turn(process: "subprocess.Popen[str]", *, asked: bool = True) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    if asked:
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.stdout.readline() == "\n"


@pytest.mark.parametrize("is_chosen", [True, False])
def test_what_runs_on_top_of_a_chosen_process_is_told_apart(is_chosen: bool) -> None:
    with sender() as process, SoftirqTimeProbe.load({process.pid if is_chosen else free_pid()}) as probe:
        before, ran = probe.read(), clock_seconds(process.pid)
        turn(process)
        found, ran = probe.read(), clock_seconds(process.pid) - ran

    spent = NetRxTime(found.ns - before.ns, found.on_chosen_ns - before.on_chosen_ns)
    assert spent.ns >= 20_000 * 100, "0.1 µs for a datagram at the very least"
    if is_chosen:
        assert 20_000 * 100 <= spent.on_chosen_ns <= min(spent.ns, ran * 1e9)
    else:
        assert spent.on_chosen_ns == 0
