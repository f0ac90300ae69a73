"""Steering: each worker of a SO_REUSEPORT server gets the packets of one queue, and nothing of it stays afterwards."""

import os
import random
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from napctl.kernel import processes
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, connected, memcached
from napctl.lab.webservers import nginx
from napctl.model.change import SteeringChange
from tests.lab.following import (
    REQUEST,
    all_unset,
    attached,
    closed,
    connections,
    following,
    new_connections_are_spread,
    queues_of,
    queues_of_datagrams,
    settings_of,
    spread,
    steered,
)
from tests.lab.helpers import PREFERS, Napctl, Ran, ask, at, ending, params_of, until
from tests.lab.other_servers import echo, web

pytestmark = pytest.mark.lab

WORKERS = 4
NO_WINDOW = ("--window", "0s")

SHARE_THE_PORT = """
import signal, socket, sys
here = socket.socket()
here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
here.bind((sys.argv[1], int(sys.argv[2])))
here.listen()
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.build(queues=WORKERS) as lab:
        yield lab


@pytest.fixture
def server(lab: Lab) -> Iterator[Server]:
    """nginx with a listening socket for each of its workers."""
    with nginx(lab, workers=WORKERS, reuseport=True) as server:
        yield server


def steer(napctl: Napctl, server: Server, *options: object) -> Ran:
    return napctl("attach", server.pid, "--steer", *NO_WINDOW, *options)


def detached(napctl: Napctl, lab: Lab, server: Server) -> bool:
    """Whether `detach` leaves nothing: neither settings nor the program nor a record."""
    assert napctl("detach", server.pid).status == 0
    assert not any(map(attached, settings_of(lab)))
    assert all_unset(*server.workers)
    assert napctl.live() == []
    return new_connections_are_spread(lab, server)


@contextmanager
def mixed(lab: Lab, server: Server, count: int = 60) -> Iterator[None]:
    """Connections until every worker has some of several queues."""
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connections(lab, server, count))
            found = queues_of(server.pid, *server.workers)
            if spread(found) and len(found) == max(len(server.workers), 1):
                break
        yield


def test_each_worker_of_nginx_serves_one_queue_until_it_is_detached(lab: Lab, server: Server, napctl: Napctl) -> None:
    before = settings_of(lab)
    done = steer(napctl, server)

    assert done.status == 0, done
    assert all(map(attached, settings_of(lab)))
    with connections(lab, server, 200):
        assert steered(queues_of(*server.workers), WORKERS)
    closed(server, server.workers)

    assert detached(napctl, lab, server)
    assert settings_of(lab) == before


@pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
def test_each_worker_of_a_python_service_serves_one_queue(uvloop: bool, lab: Lab, napctl: Napctl) -> None:
    with web(lab, workers=WORKERS, uvloop=uvloop) as server:
        assert steer(napctl, server).status == 0
        with connections(lab, server, 100):
            assert steered(queues_of(*server.workers), WORKERS)
        closed(server, server.workers)

        assert detached(napctl, lab, server)


def test_each_worker_of_a_udp_service_gets_the_datagrams_of_one_queue(lab: Lab, napctl: Napctl) -> None:
    with echo(lab, workers=WORKERS) as server:
        assert steer(napctl, server).status == 0
        assert steered(queues_of_datagrams(lab, server, 60), WORKERS)

        assert napctl("detach", server.pid).status == 0
        assert spread(queues_of_datagrams(lab, server, 60))
        assert all_unset(*server.workers)


def test_a_udp_worker_polls_the_queue_that_is_steered_to_it_or_is_left_alone(lab: Lab, napctl: Napctl) -> None:
    """Its socket keeps the NAPI id of its first datagram, which came before the steering over any queue."""
    with echo(lab, workers=WORKERS) as server:
        assert spread(queues_of_datagrams(lab, server, 60))
        marked = queues_of(*server.workers)
        steer(napctl, server)
        served = queues_of_datagrams(lab, server, 60)
        polling = [pid for pid in server.workers if PREFERS in params_of(pid).values()]

        assert {pid: marked[pid] for pid in polling} == {pid: served[pid] for pid in polling}


def test_connections_from_before_are_counted_and_their_workers_left_alone_until_they_close(
    lab: Lab, server: Server, napctl: Napctl
) -> None:
    with mixed(lab, server):
        told = napctl("attach", server.pid, "--steer", "--dry-run", "--json").json
        shown = napctl("attach", server.pid, "--steer", "--dry-run")
        (group,) = told["steering"]
        counts = [each["sockets_by_napi"].values() for each in told["instances"] if each["sockets_by_napi"]]
        assert group["present"] == sum(map(sum, counts)) > WORKERS
        assert re.search(rf"\b{group['present']}\s+connections\s+exist", shown.stdout)
        assert not any(map(attached, settings_of(lab)))

        report = steer(napctl, server, "--json").json
        (warning,) = (each for each in report["warnings"] if "from before" in each)

        assert f"and {WORKERS - 1} more" in warning
        assert any(f"nginx ({pid})" in warning for pid in server.workers)
        assert all_unset(*server.workers)
        with connections(lab, server, 20):
            assert all_unset(*server.workers)
        assert napctl("detach", server.pid).status == 0
    closed(server, server.workers)

    assert steer(napctl, server).status == 0
    assert all(PREFERS in params_of(pid).values() for pid in server.workers)
    with connections(lab, server, 60):
        assert steered(queues_of(*server.workers), WORKERS)
    closed(server, server.workers)
    assert detached(napctl, lab, server)


def test_staying_attaches_the_workers_as_soon_as_their_connections_from_before_are_closed(
    lab: Lab, server: Server, napctl: Napctl
) -> None:
    with ExitStack() as stack:
        with mixed(lab, server):
            it = stack.enter_context(following(napctl, server.pid, "--steer"))
            it.told("attached nginx")
            assert all_unset(*server.workers)
        for pid in server.workers:
            it.told(f"of nginx ({pid})")
        until(lambda: all(PREFERS in params_of(pid).values() for pid in server.workers), "all workers attached")
        with connections(lab, server, 60):
            assert steered(queues_of(*server.workers), WORKERS)

        assert it.end() == 0, it.errors
    closed(server, server.workers)
    assert new_connections_are_spread(lab, server)
    assert all_unset(*server.workers)


def test_nginx_that_shares_one_listener_is_not_steered_and_told_of_reuseport(lab: Lab, napctl: Napctl) -> None:
    with nginx(lab, workers=WORKERS) as server, mixed(lab, server):
        assert steer(napctl, server).failed_with(3, "NAPI instances", "`reuseport`", "nothing was changed")
        assert napctl.live() == []


@pytest.mark.parametrize("workers", [WORKERS - 1, WORKERS + 1])
def test_it_is_not_steered_with_other_than_one_worker_for_each_queue(workers: int, lab: Lab, napctl: Napctl) -> None:
    with nginx(lab, workers=workers, reuseport=True) as server:
        told = napctl("attach", server.pid, "--steer", "--dry-run")
        assert told.status == 1
        assert f"{workers} workers for {WORKERS} RX queues" in " ".join(told.stdout.split())
        with mixed(lab, server):
            assert steer(napctl, server).failed_with(3, f"{workers} workers for {WORKERS} RX queues", "as many workers")
        assert napctl.live() == []


def test_it_is_not_steered_while_a_stranger_shares_its_port(lab: Lab, server: Server, napctl: Napctl) -> None:
    with mixed(lab, server):
        command = [sys.executable, "-c", SHARE_THE_PORT, server.address, str(server.port)]
        with lab.server.start(command, stdout=subprocess.PIPE) as stranger:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == b"ready\n"
            refused = steer(napctl, server)
            stranger.kill()
        assert refused.failed_with(3, "other processes", "its port", "nothing was changed")

        assert steer(napctl, server).status == 0
        assert napctl("detach", server.pid).status == 0


def test_with_a_single_queue_there_is_nothing_to_steer_and_all_fits(napctl: Napctl) -> None:
    with Lab.build() as lab, nginx(lab, workers=WORKERS, reuseport=True) as server:
        with connections(lab, server, 40):
            report = steer(napctl, server, "--json").json

        assert report["fitness"]["steering"] == []
        assert {each["type"] for each in report["transaction"]["changes"]} == {"napi", "epoll"}
        assert all(PREFERS in params_of(pid).values() for pid in server.workers)
        assert napctl("detach", server.pid).status == 0
        assert all_unset(*server.workers)


def test_memcached_that_gives_each_thread_one_queue_itself_is_attached_without_steering(
    lab: Lab, napctl: Napctl
) -> None:
    with ending(memcached(lab, threads=WORKERS, napi_ids=WORKERS)) as server, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(ask(lab, server))
        report = steer(napctl, server, "--json").json

        assert any("one queue itself (-N)" in note for note in report["fitness"]["notes"])
        assert {each["type"] for each in report["transaction"]["changes"]} == {"napi", "epoll"}
        assert sum(params == PREFERS for params in params_of(server.pid).values()) == WORKERS
        assert all(map(attached, settings_of(lab)))
        assert napctl("detach", server.pid).status == 0


def test_memcached_whose_threads_mix_queues_is_refused_and_told_of_n(lab: Lab, napctl: Napctl) -> None:
    with ending(memcached(lab, threads=WORKERS)) as server, ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(ask(lab, server))

        assert steer(napctl, server).failed_with(3, f"`-t {WORKERS} -N {WORKERS}`", "nothing was changed")
        assert all_unset(server.pid)


@pytest.mark.trials
@pytest.mark.timeout(900)
def test_napctl_killed_at_any_step_of_steering_leaves_a_way_back(
    lab: Lab, server: Server, napctl: Napctl, tmp_path: Path, trials: Callable[[int, int], int]
) -> None:
    arguments = ("attach", server.pid, "--steer", *NO_WINDOW)
    before = settings_of(lab)
    trial = Napctl(tmp_path / "trial")
    steps = trial.steps(tmp_path / "trace", *arguments)
    assert detached(trial, lab, server)
    program = ("setsockopt", attaching_step(Napctl(tmp_path / "trial 2"), tmp_path, server))
    # The last sixth of them makes the changes and records their end.
    chance = random.Random(3)
    others = [*chance.sample(steps[: len(steps) * 2 // 3], trials(1, 40)), *chance.sample(steps[-45:], trials(1, 45))]

    killed = changed = still_steered = 0
    for number, step in enumerate([program, *others]):
        victim = Napctl(tmp_path / str(number))
        done = victim(*arguments, under=at(step, "signal=SIGKILL"))
        assert done.status in (-9, 0), (step, done)  # how many ioctls the look takes differs
        killed += done.status == -9
        changed += settings_of(lab) != before
        with connections(lab, server, 40):
            still_steered += steered(queues_of(*server.workers), WORKERS)
        closed(server, server.workers)

        assert victim("recover").status == 0
        if live := victim.live():
            assert [each.state for each in live] == ["attached"]
            assert victim("detach", server.pid).status == 0
        assert victim.live() == []
        assert settings_of(lab) == before, step
        assert all_unset(*server.workers), step
        assert new_connections_are_spread(lab, server), step
        closed(server, server.workers)

    assert killed > 0.7 * len(others) - 1  # a few steps are only there if others have epoll instances, too
    assert changed >= 1, "some of the kills came between the first and the last change"
    assert still_steered >= 1, "some of them left the program in place"


def attaching_step(napctl: Napctl, tmp_path: Path, server: Server) -> int:
    """How manieth setsockopt of an attach gives the group its program."""
    trace = tmp_path / "trace of setsockopt"
    under = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(trace), "-e", "trace=setsockopt"]
    assert napctl("attach", server.pid, "--steer", *NO_WINDOW, under=under).status == 0
    assert napctl("detach", server.pid).status == 0
    calls = re.findall(r"setsockopt\(.*", trace.read_text())
    (number,) = (number for number, call in enumerate(calls, 1) if "SO_ATTACH_REUSEPORT_CBPF" in call)
    return number


@pytest.mark.parametrize("holder_too", [False, True], ids=["the master", "the master and the worker that was recorded"])
def test_the_program_is_removed_after_the_end_of_those_whom_the_record_names(
    holder_too: bool, lab: Lab, server: Server, napctl: Napctl
) -> None:
    """nginx's workers live on without the master, and each holds the sockets of all."""
    report = steer(napctl, server, "--json").json
    (change,) = (each for each in napctl.live()[0].changes if isinstance(each, SteeringChange))
    workers = server.workers
    os.kill(server.pid, signal.SIGKILL)
    if holder_too:
        os.kill(change.pid, signal.SIGKILL)
        workers.remove(change.pid)
    until(lambda: all(processes.process(pid) is None for pid in {server.pid, *([change.pid] if holder_too else [])}),
          "their end")  # fmt: skip
    with reached(lab, server):
        assert steered(queues_of(*workers), len(workers))
    closed(server, workers)

    undone = napctl("detach", report["transaction"]["pid"], "--json").json

    assert {row["outcome"] for row in undone["settings"] if row["setting"] == "steered_by_queue"} == {"restored"}
    assert not any(map(attached, settings_of(lab)))
    with reached(lab, server):
        until(lambda: spread(queues_of(*workers)), "connections of several queues at each worker")
    assert all_unset(*workers)


@contextmanager
def reached(lab: Lab, server: Server, count: int = 60) -> Iterator[None]:
    """Connections, some of which come to a listener behind which nobody is left; half of them were answered by now."""
    with ExitStack() as stack:
        some = [stack.enter_context(connected(lab, server.port)) for _ in range(count)]
        for each in some:
            each.sendall(REQUEST)
        until(lambda: len(select.select(some, [], [], 0)[0]) > count // 2, "answers")
        yield
