"""What attach --stay costs while nothing happens: CPU, looks, latency; and that it is not slow to notice."""

import math
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean, stdev

import pytest

from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server
from tests.lab.cost import Cost, traced
from tests.lab.following import all_unset, attached, flap, following, settings_of
from tests.lab.helpers import PREFERS, Napctl, another_memcached, ask, in_namespace, params_of

pytestmark = pytest.mark.lab

CONNECTIONS = 10_000
RATE = 20_000
CLIENTS = f"""
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, ({CONNECTIONS} + 1000,) * 2)
held = []
for _ in range({CONNECTIONS}):
    held.append(socket.create_connection((sys.argv[1], int(sys.argv[2]))))
held[0].sendall(b"set key0 0 0 100\\r\\n" + 100 * b"v" + b"\\r\\n")
assert held[0].recv(100) == b"STORED\\r\\n"
for each in held:
    each.sendall(b"version\\r\\n")
    assert each.recv(100).startswith(b"VERSION")
print("ready", flush=True)
time.sleep(1200)
"""


@contextmanager
def with_many_connections(lab: Lab) -> Iterator[Server]:
    """A memcached with so many connections, all of which have had an answer."""
    with another_memcached(lab, 11400, options=("-c", str(CONNECTIONS + 500), "-b", "4096")) as server:
        command = [sys.executable, "-c", CLIENTS, server.address, str(server.port)]
        clients = lab.client.start(command, stdout=subprocess.PIPE)
        try:
            assert clients.stdout is not None
            assert clients.stdout.readline() == b"ready\n"
            yield server
        finally:
            clients.kill()
            clients.communicate()


@pytest.mark.trials
@pytest.mark.timeout(300)
def test_a_settled_target_is_followed_for_less_than_a_hundredth_of_a_cpu(
    lab: Lab, napctl: Napctl, tmp_path: Path, trials: Callable[[int, int], int]
) -> None:
    seconds = trials(15, 60)
    load = LoadSpec(rate_per_second=RATE, seconds=seconds + 15)
    trace = tmp_path / "trace"
    with with_many_connections(lab) as server, ExitStack() as stack:
        it = stack.enter_context(following(napctl, server.pid, "--defer-us", 200, under=traced(trace)))
        it.told("attached memcached", patience_s=20)
        stack.enter_context(started(lab, server, load)).wait_for_warmup()
        time.sleep(5)  # the new connections of the load are a change
        cost = Cost(it, trace)
        time.sleep(seconds)

        assert cost.share < 0.01, (cost.share, cost.looks)
        assert cost.looks <= 3
        assert cost.programs == 0
        assert len(it.since()) == 1
        print(f"{cost.share:.2%} of a CPU, {cost.looks} looks in {seconds} s")
        assert it.end() == 0


@pytest.mark.trials
def test_with_200_veths_beside_it_costs_the_same(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path, trials: Callable[[int, int], int]
) -> None:
    """Their events neither end a wait nor are told: nothing is read of a device that is not attached."""
    seconds, shares, trace = trials(5, 60), [], tmp_path / "trace"
    with following(napctl, server.pid, "--defer-us", 200, under=traced(trace)) as it:
        it.told("attached memcached")
        for veths in (0, 200):
            for number in range(veths // 2):
                in_namespace(lab.server.namespace, "ip", "link", "add", f"v{number}", "type", "veth")
            time.sleep(3)
            cost = Cost(it, trace)
            time.sleep(seconds)
            shares.append(cost.share)
        print([f"{share:.2%}" for share in shares])
        assert shares[1] < max(2 * shares[0], 0.003)
        assert len(it.since()) == 1
        assert it.end() == 0


@pytest.mark.trials
@pytest.mark.timeout(1800)
def test_the_server_answers_as_soon_as_it_does_unfollowed(
    lab: Lab, napctl: Napctl, trials: Callable[[int, int], int]
) -> None:
    """Its 99.9th percentile, paired; a rise of 25 % would be found."""
    least, most = trials(2, 12), trials(2, 40)
    found: list[float] = []
    with with_many_connections(lab) as server:
        while len(found) < most:
            both = {}
            for followed in (len(found) % 2 == 0, len(found) % 2 == 1):
                both[followed] = p999_us(lab, server, napctl, followed=followed, seconds=trials(2, 10))
            found.append(math.log(both[True] / both[False]))
            if len(found) >= least and (least < 3 or half_width(found) < math.log(1.25)):
                break
        print(f"{math.exp(fmean(found)) - 1:+.1%} in {len(found)} rounds")
        if least >= 3:
            assert half_width(found) < math.log(1.25), found
            assert fmean(found) - half_width(found) <= 0, found
        assert all_unset(server.pid)


def half_width(ratios: list[float]) -> float:
    """Of the 95 % interval of their mean."""
    return 2.1 * stdev(ratios) / math.sqrt(len(ratios))


def p999_us(lab: Lab, server: Server, napctl: Napctl, *, followed: bool, seconds: float) -> float:
    with ExitStack() as stack:
        if followed:
            it = stack.enter_context(following(napctl, server.pid, "--defer-us", 200))
            it.told("attached memcached", patience_s=20)
        else:
            assert napctl("attach", server.pid, "--defer-us", 200, "--window", 0).status == 0
            stack.callback(napctl, "detach", server.pid)
        spec = LoadSpec(rate_per_second=RATE, seconds=seconds, warmup_seconds=3)
        with started(lab, server, spec) as load:
            found = load.result().p999_us
        assert found is not None
        return found


@pytest.mark.timeout(300)
def test_with_thousands_of_connections_a_new_worker_is_attached_within_10_s_and_a_reset_mended_within_1(
    lab: Lab, napctl: Napctl
) -> None:
    """The worker is a thread of its own epoll instance, which memcached gives its first connection."""
    with with_many_connections(lab) as server, following(napctl, server.pid, "--defer-us", 200) as it:
        it.told("attached memcached", patience_s=20)
        for _ in range(3):
            flap(lab)
            up = time.time()
            it.told("attached NAPI", since=up)
            assert all(map(attached, settings_of(lab)))
            assert it.told("attached NAPI", since=up).seconds - up < 1
        assert it.end() == 0


def test_a_new_worker_is_attached_within_2_s_of_its_first_connection(lab: Lab, napctl: Napctl) -> None:
    with another_memcached(lab, 11401, options=("-t", "4")) as server, ExitStack() as stack:
        stack.enter_context(ask(lab, server))
        it = stack.enter_context(following(napctl, server.pid, "--defer-us", 200))
        it.told("attached memcached")
        time.sleep(2)
        took = []
        for _ in range(2):  # each goes to the next thread
            connected = time.time()
            stack.enter_context(ask(lab, server))
            took.append(it.told("attached epoll", since=connected).seconds - connected)
        assert sum(each == PREFERS for each in params_of(server.pid).values()) == 3, (it.since(), params_of(server.pid))
        assert min(took) < 2, took
        assert it.end() == 0
