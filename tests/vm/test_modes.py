"""Threads that busy poll, on real drivers: counts only, as their time says nothing in an emulated machine."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from napctl.kernel.cpu_time import run_seconds
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.activity import Attached
from napctl.model.change import ThreadChange
from napctl.model.value import from_json
from napctl.observe.window import Observer
from tests.lab.helpers import Napctl, until
from tests.vm.test_threads import napi_of, scheduled
from tests.vm.wire import Wire

PORT = 7100
ECHO = """
import selectors, socket, sys
here = socket.create_server((sys.argv[1], int(sys.argv[2])))
waiting = selectors.DefaultSelector()
waiting.register(here, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        if key.fileobj is here:
            waiting.register(here.accept()[0], selectors.EVENT_READ)
        elif data := key.fileobj.recv(100):
            key.fileobj.send(data)
        else:
            waiting.unregister(key.fileobj)
"""
ASK = """
import socket, sys, time
there = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
while True:
    there.send(b"x")
    assert there.recv(100) == b"x"
    print("x", flush=True)
    time.sleep(0.002)
"""


@contextmanager
def python(code: str, *arguments: object, under: tuple[str, ...] = ()) -> Iterator["subprocess.Popen[bytes]"]:
    """Once it has said a first line."""
    command = [*under, sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def served(wire: Wire) -> Iterator["subprocess.Popen[bytes]"]:
    """A server with a connection over the wire, over which requests come."""
    with python(ECHO, wire.address, PORT) as server:
        asking = python(ASK, wire.address, PORT, under=("ip", "netns", "exec", wire.peer_namespace))
        with asking:
            yield server


@pytest.mark.long
@pytest.mark.parametrize("spins", [False, True])
def test_a_thread_beside_the_server_polls_and_goes_again(
    spins: bool,
    wire: Wire,
    served: "subprocess.Popen[bytes]",
    napctl: Napctl,
) -> None:
    options = ["--spin"] if spins else []
    assert (napi_of(wire.device).settings.threaded, napi_of(wire.device).thread_pid) == ("disabled", None)
    done = napctl("attach", served.pid, "--mode", "thread", *options, "--window", "1s", "--json", timeout_s=120)
    try:
        assert done.status == 0, done
        report = from_json(done.stdout, Attached)
        now = napi_of(wire.device)
        assert now.settings.threaded == ("busy-poll" if spins else "enabled")
        assert now.thread_pid is not None
        (change,) = report.transaction.changes
        assert isinstance(change, ThreadChange)
        assert (report.mode, scheduled(now)) == ("thread", (0, change.after.cpus))
        with NetworkNamespace.current() as netns, Observer(netns, [wire.device]) as observer:

            def polled() -> tuple[int, int]:
                (napi,) = (each for each in observer.window().napis if each.napi_id == now.napi_id)
                return (napi.thread.polls if napi.thread else 0), napi.polls.polls

            observer.restart()
            time.sleep(0.5)
            by_thread, by_all = polled()
            assert by_thread > 0.5 * by_all > 0
            if spins:
                before = run_seconds(now.thread_pid)
                until(lambda: run_seconds(now.thread_pid or 0) - before > 0.2, "it to spin", 30)
    finally:  # it would take the CPU from all tests to come
        assert napctl("detach", "--all", timeout_s=120).status == 0
    assert (napi_of(wire.device).settings.threaded, napi_of(wire.device).thread_pid) == ("disabled", None)
    wire.ping(5)
