"""What attach --stay costs while nothing happens: CPU, looks, latency; and that it is not slow to notice."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import pytest

from napctl.attach import follow_members
from napctl.attach.follow import Stay
from napctl.attach.follow_many import follow
from napctl.attach.inspect_target import Examination, examine
from napctl.attach.target import parse
from napctl.change.guard import watched
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server, accepts, children
from tests.lab.cost import Cost, traced
from tests.lab.following import all_unset, attached, flap, following, settings_of
from tests.lab.helpers import (
    PREFERS,
    QUICKLY,
    Napctl,
    another_memcached,
    ask,
    ending,
    in_namespace,
    params_of,
    until,
)
from tests.lab.other_servers import python_server

pytestmark = [pytest.mark.lab, pytest.mark.alone]

CONNECTIONS = 10_000
RATE = 20_000
SPANS = 3
"""Of which one is as settled as the target: where others have kept it from polling in the first trial, more follow."""
CLIENTS = f"""
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, ({CONNECTIONS} + 1000,) * 2)
held = []
for _ in range({CONNECTIONS}):
    held.append(socket.create_connection((sys.argv[1], int(sys.argv[2]))))
held[0].sendall(b"set key0 0 0 100\\r\\n" + 100 * b"v" + b"\\r\\n")
held[0].recv(100)
for each in held:
    each.sendall(b"version\\r\\n")
for each in held:
    assert each.recv(100).startswith(b"VERSION")
print("ready", flush=True)
time.sleep(3600)
"""
FORKS = f"""
    import os, resource, select, signal, socket, sys
    resource.setrlimit(resource.RLIMIT_NOFILE, ({CONNECTIONS} + 1000,) * 2)

    def serve(port):
        waiting = socket.create_server((sys.argv[1], port), backlog=4096)
        epoll, open_ = select.epoll(), {{}}
        epoll.register(waiting, select.EPOLLIN)
        while True:
            for fd, _ in epoll.poll():
                if fd == waiting.fileno():
                    connection, _ = waiting.accept()
                    open_[connection.fileno()] = connection
                    epoll.register(connection, select.EPOLLIN)
                elif open_[fd].recv(200):
                    open_[fd].sendall(b"VERSION\\r\\n")
                else:
                    open_.pop(fd).close()

    def fork(*_):
        if os.fork() == 0:
            os.closerange(3, {CONNECTIONS} + 1000)
            serve(int(sys.argv[2]) + 1)

    signal.signal(signal.SIGUSR1, fork)
    serve(int(sys.argv[2]))
"""
"""At SIGUSR1 it begets a worker, who listens at the next port."""


@contextmanager
def worker_of(lab: Lab, server: Server) -> Iterator[int]:
    """The pid of a worker that a server of FORKS begets, and that has got its first connection."""
    os.kill(server.pid, signal.SIGUSR1)
    (worker,) = until(lambda: children(server.pid), "the worker")
    try:
        port = Server(server.process, server.address, server.port + 1)
        until(lambda: accepts(lab, port), "it to listen")
        with ask(lab, port):
            yield worker
    finally:
        os.kill(worker, signal.SIGKILL)


@contextmanager
def many_connections(lab: Lab, server: Server) -> Iterator[None]:
    """All of which have had an answer."""
    command = [sys.executable, "-c", CLIENTS, server.address, str(server.port)]
    clients = lab.client.start(command, stdout=subprocess.PIPE)
    try:
        assert clients.stdout is not None
        assert clients.stdout.readline() == b"ready\n"
        yield
    finally:
        clients.kill()
        clients.communicate()


@contextmanager
def with_many_connections(lab: Lab, *options: str) -> Iterator[Server]:
    """A memcached."""
    options = ("-c", str(CONNECTIONS + 500), "-b", "4096", *options)
    with another_memcached(lab, 11400, options=options) as server, many_connections(lab, server):
        yield server


@pytest.mark.trials
@pytest.mark.timeout(300)
def test_a_settled_target_is_followed_for_less_than_a_hundredth_of_a_cpu(
    lab: Lab, napctl: Napctl, tmp_path: Path, trials: Callable[[int, int], int]
) -> None:
    seconds = trials(8, 60)
    load = LoadSpec(rate_per_second=RATE, seconds=SPANS * seconds + 15)
    trace = tmp_path / "trace"
    with with_many_connections(lab) as server, ExitStack() as stack:
        stack.enter_context(started(lab, server, load)).wait_for_warmup()  # its connections are no change then
        it = stack.enter_context(following(napctl, server.pid, "--defer-us", 200, under=traced(trace)))
        it.told("attached memcached")
        time.sleep(3)  # it watches for a second whether what is attached starves, and looks once more
        for _ in range(SPANS):
            cost = Cost(it, trace)
            time.sleep(seconds)
            share, looks, programs = cost.share, cost.looks, cost.programs
            print(f"{share:.2%} of a CPU, {looks} looks, {programs} programs in {seconds} s")
            if (share < 0.01, looks <= 3, programs) == (True, True, 0):
                break
        assert share < 0.01
        assert looks <= 3
        assert programs == 0
        assert len(it.since()) == 1
        assert it.end() == 0


@pytest.mark.long
@pytest.mark.timeout(300)
def test_with_200_veths_beside_it_costs_the_same(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    """Their events neither end a wait nor are told: nothing is read of a device that is not attached."""
    seconds, shares, trace = 60, [], tmp_path / "trace"
    with following(napctl, server.pid, "--defer-us", 200, under=traced(trace)) as it:
        it.told("attached memcached")
        for veths in (0, 200):
            for number in range(veths // 2):
                in_namespace(lab.server.namespace, "ip", "link", "add", f"v{number}", "type", "veth")
            time.sleep(10)  # what attaching leads to, or the new devices, is over then: else the first share has it
            cost = Cost(it, trace)
            time.sleep(seconds)
            shares.append(cost.share)
        print([f"{share:.2%}" for share in shares])
        assert shares[1] < max(2 * shares[0], 0.003)
        assert len(it.since()) == 1
        assert it.end() == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_server_answers_as_soon_as_it_does_unfollowed(lab: Lab, napctl: Napctl) -> None:
    """Its 99.9th percentile, paired; a rise of 25 % would be found."""
    found: list[float] = []
    with with_many_connections(lab) as server:
        while len(found) < 12 or (not would_find(1.25, found) and len(found) < 40):
            both = {}
            for followed in (len(found) % 2 == 0, len(found) % 2 == 1):
                both[followed] = p999_us(lab, server, napctl, followed=followed, seconds=10)
            found.append(math.log(both[True] / both[False]))
        print(f"{math.exp(fmean(found)) - 1:+.1%} ± {half_width(found):.1%} in {len(found)} rounds")
        assert would_find(1.25, found), found
        assert fmean(found) - half_width(found) <= 0, found
        assert all_unset(server.pid)


def half_width(ratios: list[float]) -> float:
    """Of the 95 % interval of their mean."""
    return 2.2 * stdev(ratios) / math.sqrt(len(ratios))


def would_find(rise: float, ratios: list[float]) -> bool:
    """Whether such a rise would have been seen in four of five runs of so many rounds, as noisy as these."""
    error = half_width(ratios) / 2.2
    return math.log(rise) - 0.85 * error > 2.2 * error


def p999_us(lab: Lab, server: Server, napctl: Napctl, *, followed: bool, seconds: float) -> float:
    with ExitStack() as stack:
        if followed:
            it = stack.enter_context(following(napctl, server.pid, "--defer-us", 200))
            it.told("attached memcached")
        else:
            assert napctl("attach", server.pid, "--defer-us", 200, "--window", 0).status == 0
            stack.callback(napctl, "detach", server.pid)
        spec = LoadSpec(rate_per_second=RATE, seconds=seconds, warmup_seconds=3)
        with started(lab, server, spec) as load:
            found = load.result().p999_us
        assert found is not None
        return found


@pytest.mark.long
@pytest.mark.timeout(300)
def test_with_thousands_of_connections_a_new_worker_is_attached_within_10_s_and_a_reset_mended_within_1(
    lab: Lab, napctl: Napctl
) -> None:
    with ending(python_server(lab, FORKS)) as server, many_connections(lab, server), ExitStack() as stack:
        it = stack.enter_context(following(napctl, server.pid, "--defer-us", 200))
        it.told("attached python")
        connected = time.time()
        worker = stack.enter_context(worker_of(lab, server))
        it.told(f"({worker})", since=connected, patience_s=10)
        assert PREFERS in params_of(worker).values()

        took = []
        for _ in range(3):
            flap(lab)
            up = time.time()
            took.append(it.told("attached NAPI", since=up).seconds - up)
            assert all(map(attached, settings_of(lab)))
        assert median(took) < 1, took
        assert it.end() == 0


def test_a_new_worker_is_attached_within_2_s_of_its_first_connection(lab: Lab, napctl: Napctl) -> None:
    with another_memcached(lab, 11401, options=("-t", "5")) as server, ExitStack() as stack:
        stack.enter_context(ask(lab, server))
        it = stack.enter_context(following(napctl, server.pid, "--defer-us", 200))
        it.told("attached memcached")
        time.sleep(2)
        took = []
        for _ in range(3):  # each goes to the next thread
            connected = time.time()
            stack.enter_context(ask(lab, server))
            took.append(it.told("attached epoll", since=connected).seconds - connected)
        assert sum(each == PREFERS for each in params_of(server.pid).values()) == 4, (it.since(), params_of(server.pid))
        assert median(took) < 2, took
        assert it.end() == 0


@contextmanager
def at_priority(nice: int) -> Iterator[None]:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def test_a_look_that_nobody_waits_for_lets_all_others_run_first(
    lab: Lab, napctl: Napctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other: neither the first, nor at a new worker's first connection; nor what is done upon a look."""
    looks, told = list[int](), list[str]()

    def seen(*arguments: Any, **options: Any) -> Examination:
        looks.append(os.getpriority(os.PRIO_PROCESS, 0))
        return examine(*arguments, **options)

    with ExitStack() as stack, ending(python_server(lab, FORKS)) as server, ask(lab, server), at_priority(3):

        def stopped() -> Iterator[bool]:
            while not any(line.startswith("attached") for line in told):
                yield False
            assert set(looks) == {3}
            for change, nice in ((ask, 19), (worker_of, 3)):
                looks.clear()
                stack.enter_context(change(lab, server))
                while not looks:
                    yield False
                assert set(looks) == {nice}
                assert os.getpriority(os.PRIO_PROCESS, 0) == 3
            yield True

        monkeypatch.setattr(follow_members, "examine", seen)
        guard = stack.enter_context(watched(None, napctl.state))
        steps = stopped()
        stay = Stay(parse(str(server.pid)), QUICKLY, guard, napctl.state, lambda line, _kind=None: told.append(line))
        follow([stay], lambda: next(steps, True))
