"""attach by every kind of name, over namespaces and forks, and for a server with very many connections."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from secrets import token_hex

import pytest

from napctl.attach.activity import Meter
from napctl.attach.inspect_target import examine
from napctl.kernel import processes
from napctl.kernel.listeners import listeners
from napctl.kernel.process_tree import descendants
from napctl.lab.bed import Lab
from napctl.lab.servers import MEMCACHED_PORT, Server, connected, serve
from napctl.model.change import EpollChange
from napctl.model.fitness import Fitness
from napctl.model.value import from_json
from tests.lab.helpers import (
    PREFERS,
    UNSET,
    Napctl,
    another_memcached,
    answers,
    ask,
    ending,
    params_of,
    state_of,
    state_of_process,
    until,
)
from tests.lab.other_servers import web
from tests.lab.targets import groups_here, removed

pytestmark = pytest.mark.lab

QUICKLY = ("--window", 0, "--defer-us", 200)
MANY, WORKERS = 10_000, 4

HOLD_CONNECTIONS = f"""
import signal, socket, sys
held = []
for _ in range({MANY} // 100):  # a veth's ring is short: a SYN that is lost there comes again after a second
    some = [socket.socket() for _ in range(100)]
    for each in some:
        each.setblocking(False)
        each.connect_ex((sys.argv[1], int(sys.argv[2])))
    for each in some:
        each.setblocking(True)
        each.sendall(b"version\\r\\n")  # waits for the connection
    for each in some:
        assert each.recv(100)
    held += some
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group named as a container's of a unit's is; processes in it must have ended when it is removed."""
    identity = f"a1{token_hex(31)}"
    directory = groups_here() / f"docker-{identity}.scope"
    directory.mkdir()
    yield directory
    until(lambda: removed(directory), f"{directory} to be empty")


def attached_and_detached(napctl: Napctl, lab: Lab, target: object, pids: set[int]) -> None:
    """By that word both ways: these processes and no others are changed, and everything comes back."""
    before = state_of(lab.server)

    attached = napctl("attach", target, *QUICKLY)
    assert (attached.status, attached.stderr) == (0, ""), (target, attached)
    (transaction,) = napctl.live()
    assert {each.pid for each in transaction.changes if isinstance(each, EpollChange)} == pids
    assert all(PREFERS in params_of(pid).values() for pid in pids)

    detached = napctl("detach", target)
    assert (detached.status, detached.stderr) == (0, ""), (target, detached)
    assert napctl.live() == []
    assert state_of(lab.server) == before


def test_a_server_is_attached_and_detached_by_pid_name_and_port(
    lab: Lab, unusual: str, port: int, napctl: Napctl
) -> None:
    name = Path(unusual).name
    with another_memcached(lab, port, program=unusual) as server, ask(lab, server):
        for target in (server.pid, f"pid:{server.pid}", name, f"name:{name}", f":{port}", f"port:{port}"):
            attached_and_detached(napctl, lab, target, {server.pid})


def test_a_server_is_attached_and_detached_by_unit_control_group_and_container(
    lab: Lab, group: Path, port: int, napctl: Napctl
) -> None:
    identity = group.name.removeprefix("docker-").removesuffix(".scope")
    with another_memcached(lab, port) as server, ask(lab, server):
        (group / "cgroup.procs").write_text(str(server.pid))
        for target in (group.name, f"unit:{group.name}", f"/{group.name}", identity[:12], f"container:{identity[:9]}"):
            attached_and_detached(napctl, lab, target, {server.pid})


@contextmanager
def fed_workers(lab: Lab, server: Server) -> Iterator[None]:
    """Connections to all of a server's workers, each of which has had an answer."""
    with ExitStack() as stack:

        def another() -> bool:
            connection = stack.enter_context(connected(lab, server.port))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            found = examine("web", descendants([server.pid]))
            return {each.process.pid for each in found.instances if each.sockets_by_napi} == set(server.workers)

        until(another, "connections to every worker")
        yield


def test_the_workers_of_a_master_are_part_of_it(lab: Lab, napctl: Napctl) -> None:
    with web(lab, workers=3) as server, fed_workers(lab, server):
        workers = set(server.workers)
        attached_and_detached(napctl, lab, server.pid, workers)

        assert napctl("attach", server.pid, *QUICKLY).status == 0
        assert napctl("attach", min(workers), *QUICKLY).failed_with(2, "already attached")
        assert napctl("detach", max(workers)).status == 0
        assert all(set(params_of(pid).values()) == {UNSET} for pid in workers)


def test_one_worker_can_be_attached_alone(lab: Lab, napctl: Napctl) -> None:
    with web(lab, workers=2) as server, fed_workers(lab, server):
        one, other = server.workers
        attached_and_detached(napctl, lab, one, {one})
        assert set(params_of(other).values()) == {UNSET}


def test_a_server_in_namespaces_of_its_own_needs_no_entering(lab: Lab, port: int, napctl: Napctl) -> None:
    """Network, PID, mount and cgroup namespaces; it is named from outside, by pid of either side and by port."""
    inner = ["memcached", "-t", "1", "-u", "root", "-l", lab.server.address, "-p", str(port), "-U", "0"]
    kinds = ["--pid", "--mount", "--cgroup", "--uts", "--ipc"]
    command = ["unshare", *kinds, "--fork", "--kill-child", "--mount-proc", *inner]
    with ending(serve(lab, command, port)) as wrapper, ask(lab, wrapper) as client:
        (pid,) = wrapper.workers
        for kind in ("net", "pid", "mnt", "cgroup"):
            assert Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()

        for target in (pid, wrapper.pid, f":{port}"):
            attached_and_detached(napctl, lab, target, {pid})
            assert answers(client)


FORKS = """
    import os, select, socket, sys, time
    waiting = socket.create_server((sys.argv[1], int(sys.argv[2])))
    epoll = select.epoll()
    epoll.register(waiting, select.EPOLLIN)
    def serve(patience):
        for fd, _ in epoll.poll(patience):
            if fd == waiting.fileno():
                connection, _ = waiting.accept()
                held[connection.fileno()] = connection
                epoll.register(connection, select.EPOLLIN)
            elif data := os.read(fd, 100):
                os.write(fd, b"VERSION\\r\\n")
            else:
                epoll.unregister(fd)
                held.pop(fd)
    held = {}
    while not any(connection.getpeername() for connection in held.values()):
        serve(None)
    serve(None)
    if os.fork():
        time.sleep(60)
    while True:
        serve(None)
"""


def test_workers_whose_master_holds_no_socket_are_one_server_at_their_port(lab: Lab, port: int, napctl: Napctl) -> None:
    with web(lab, workers=3, port=port) as server:
        told = napctl("attach", f":{port}", "--dry-run", "--json").json

        assert sorted({each["pid"] for each in told["instances"]}) == sorted(server.workers)


def test_an_epoll_instance_that_two_processes_hold_after_a_fork_is_one(lab: Lab, port: int, napctl: Napctl) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FORKS), lab.server.address, str(port)]
    ready = ["sh", "-c", 'exec "$@"', "sh", *command]
    with ending(serve(lab, ready, port, ready=_listens)) as server, ask(lab, server):
        (child,) = until(lambda: server.workers, "its fork")
        until(lambda: {state_of_process(pid) for pid in (server.pid, child)} == {"S"}, "both to wait")
        try:
            fitness = from_json(napctl("attach", server.pid, "--dry-run", "--json").stdout, Fitness)
            before = state_of(lab.server)

            (instance,) = fitness.instances
            assert (instance.pid, instance.held_by) == (server.pid, (child,))
            assert instance.judgement == "fits"
            assert instance.threads == (child,), "the master does not wait in it"
            shown = napctl("attach", server.pid, "--dry-run").stdout
            assert f"also held by {child}" in " ".join(shown.split())  # whatever the width of the terminal

            assert napctl("attach", server.pid, *QUICKLY).status == 0
            (transaction,) = napctl.live()
            assert sum(isinstance(each, EpollChange) for each in transaction.changes) == 1
            assert list(params_of(server.pid).values()) == list(params_of(child).values()) == [PREFERS]
            assert napctl("detach", server.pid).status == 0
            assert list(params_of(child).values()) == [UNSET]
            assert state_of(lab.server) == before
        finally:
            os.kill(child, signal.SIGKILL)


def test_what_a_shared_instance_was_is_restored_through_the_process_that_is_left(
    lab: Lab, port: int, napctl: Napctl
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FORKS), lab.server.address, str(port)]
    ready = ["sh", "-c", 'exec "$@"', "sh", *command]
    with ending(serve(lab, ready, port, ready=_listens)) as server, ask(lab, server):
        (child,) = until(lambda: server.workers, "its fork")
        try:
            assert napctl("attach", server.pid, *QUICKLY).status == 0
            server.process.kill()
            server.process.wait()

            assert napctl("recover").stdout == "nothing to recover\n", "the child still serves"
            assert napctl("detach", server.pid).status == 0
            assert list(params_of(child).values()) == [UNSET]
        finally:
            os.kill(child, signal.SIGKILL)


def _listens(_lab: Lab, server: Server) -> bool:
    """Without connecting: the first connection makes that server fork."""
    return any(each.port == server.port for each in listeners(server.port))


@contextmanager
def many_connections(lab: Lab) -> Iterator[tuple[Server, socket.socket]]:
    """memcached with 10,000 connections over its workers, and one more for the test."""
    options = ["-t", str(WORKERS), "-c", str(MANY + 2000), "-l", f"{lab.server.address}:{MEMCACHED_PORT}", "-U", "0"]
    with ExitStack() as stack:
        server = stack.enter_context(ending(serve(lab, ["memcached", *options], MEMCACHED_PORT, user="nobody")))
        command = [sys.executable, "-c", HOLD_CONNECTIONS, server.address, str(server.port)]
        holder = stack.enter_context(lab.client.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        stack.callback(holder.kill)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        yield server, stack.enter_context(ask(lab, server))


def test_ten_thousand_connections_are_analysed_and_attached_within_two_seconds_and_read_within_a_tenth(
    lab: Lab, napctl: Napctl
) -> None:
    with many_connections(lab) as (server, client):
        found = processes.process(server.pid)
        assert found is not None
        before = state_of(lab.server)

        def analysed() -> bool:
            """In 0.1 s on a machine that does nothing else."""
            began = time.monotonic()
            examination = examine("memcached", [found])
            took = time.monotonic() - began
            counts = [sum(each.sockets_by_napi.values()) for each in examination.instances if each.sockets_by_napi]
            assert (sum(counts), len(counts)) == (MANY + 1, WORKERS)
            return took <= 2

        def attached() -> bool:
            began = time.monotonic()
            report = napctl("attach", server.pid, "--window", 0, "--json").json
            if report["attach_seconds"] <= 2 and time.monotonic() - began <= 2:
                return True
            assert napctl("detach", server.pid).status == 0
            return False

        until(analysed, "an analysis for which others leave the CPU", 20)
        until(attached, "an attachment for which they do", 20)
        assert list(params_of(server.pid).values()).count(PREFERS) == WORKERS
        assert _best_refresh(napctl) <= 0.1
        assert _best_tick(napctl, 0.2) <= 0.2 + 0.1
        assert answers(client)
        assert napctl("detach", server.pid).status == 0
        assert state_of(lab.server) == before


def _best_refresh(napctl: Napctl) -> float:
    """Of ten, s."""
    taken = []
    with Meter(napctl.live()) as meter:
        for _ in range(10):
            began = time.monotonic()
            ((now, _),) = meter.read()
            taken.append(time.monotonic() - began)
            assert now.verdict == "quiet"
    return min(taken)


def _best_tick(napctl: Napctl, interval: float) -> float:
    """The shortest of ten pauses between two reports of `attached --watch`, s."""
    with napctl.start("attached", "--watch", "--json", "--interval", interval) as watching:
        assert watching.stdout is not None
        came = []
        for _ in range(11):
            report = json.loads(watching.stdout.readline())
            came.append(time.monotonic())
            assert report["attachments"][0]["verdict"] == "quiet"
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)
    return min(after - before for before, after in pairwise(came))
