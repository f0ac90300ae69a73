"""Servers that wait otherwise than in epoll on TCP: in recv, poll, select, AF_XDP, io_uring; and for UDP in epoll."""

import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from napctl.attach.inspect_target import examine
from napctl.attach.timer_choice import TIMERS_NS
from napctl.kernel import processes, sockets
from napctl.kernel.sysctl import read_global
from napctl.lab.bed import End, Lab
from napctl.lab.servers import Server
from napctl.model.change import NapiChange, SocketChange
from napctl.model.fitness import Fitness, SocketFitness
from napctl.model.settings import NapiSettings, SocketPolling
from napctl.model.timer_choice import TimerChoice, Trial
from napctl.model.value import from_json
from napctl.model.window import own_polls
from napctl.observe.window import Observer
from tests.lab.helpers import SUSPENDED, Napctl, params_of, polling_of, state_of, until, without
from tests.lab.other_servers import datagrams, echo, echoed

pytestmark = pytest.mark.lab

OFF = SocketPolling(busy_poll_usecs=0, prefer_busy_poll=False)
ON = SocketPolling(busy_poll_usecs=50, prefer_busy_poll=True)


@contextmanager
def python(end: End, code: str) -> Iterator[int]:
    """A Python program at one end, once it has said that it is ready; its pid."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    process = end.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if line == b"not here\n":
            pytest.skip("this kernel does not allow it")
        assert line == b"ready\n", process.communicate()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def explained(napctl: Napctl, pid: int, *, status: int) -> Fitness:
    done = napctl("attach", pid, "--dry-run", "--json")
    assert (done.status, done.stderr) == (status, ""), done
    return from_json(done.stdout, Fitness)


def only_socket(fitness: Fitness) -> SocketFitness:
    (one,) = fitness.sockets
    return one


def fed(lab: Lab, server: Server) -> None:
    assert echoed(lab, server, 3) == 3


def test_exactly_the_socket_that_a_server_blocks_in_recv_on_is_made_to_busy_poll(lab: Lab, napctl: Napctl) -> None:
    with echo(lab, wait_in="recv") as server:
        fed(lab, server)
        (napi,) = lab.server.napis()
        (fd,) = polling_of(server.pid)
        before = state_of(lab.server)
        assert only_socket(explained(napctl, server.pid, status=0)).judgement == "fits"

        report = napctl("attach", server.pid, "--window", 0, "--defer-us", 200, "--json").json
        (transaction,) = napctl.live()

        assert report["verdict"] == "not measured"
        assert [type(each) for each in transaction.changes] == [NapiChange, SocketChange]
        (change,) = (each for each in transaction.changes if isinstance(each, SocketChange))
        assert (change.fd, change.budget, change.before, change.after) == (fd, 64, OFF, ON)
        assert polling_of(server.pid) == {fd: ON}
        assert [each.settings for each in lab.server.napis()] == [NapiSettings(**SUSPENDED, threaded="enabled")]
        assert lab.server.napis()[0].napi_id == napi.napi_id
        fed(lab, server)

        assert napctl("detach", server.pid).status == 0
        assert polling_of(server.pid) == {fd: OFF}
        assert state_of(lab.server) == before
        fed(lab, server)


def test_the_options_reach_the_socket_and_former_values_come_back(lab: Lab, napctl: Napctl) -> None:
    former = SocketPolling(busy_poll_usecs=7, prefer_busy_poll=False)
    with echo(lab, wait_in="recv") as server:
        fed(lab, server)
        (fd,) = polling_of(server.pid)
        with processes.Handle(server.pid) as handle, handle.copy_of(fd) as copy:
            sockets.set_polling(copy, former, 0)

        options = ("--busy-poll-usecs", 33, "--busy-poll-budget", 16)
        assert napctl("attach", server.pid, "--window", 0, "--defer-us", 50, *options).status == 0
        (change,) = (each for each in napctl.live()[0].changes if isinstance(each, SocketChange))

        assert polling_of(server.pid) == {fd: SocketPolling(busy_poll_usecs=33, prefer_busy_poll=True)}
        assert (change.budget, change.before) == (16, former)
        assert napctl("detach", server.pid).status == 0
        assert polling_of(server.pid) == {fd: former}


def test_a_server_that_blocks_in_recv_polls_once_it_is_attached(lab: Lab, napctl: Napctl) -> None:
    with echo(lab, wait_in="recv", cpus={lab.server.cpu}) as server, datagrams(lab, server):
        fed(lab, server)
        with Observer(lab.server.namespace) as observer:

            def own() -> int:
                return own_polls(observer.window().napis, server.pid).polls

            observer.restart()
            assert own() == 0
            assert napctl("attach", server.pid, "--window", 0, "--defer-us", 200).status == 0
            until(lambda: own() > 20, "polls of its own")

            def judged() -> bool:
                report = napctl("attached", "--json", "--interval", 0.3).json
                return bool(report["attachments"][0]["verdict"] == "active")

            until(judged, "a window in which it is active")
            assert napctl("detach", server.pid).status == 0
            observer.window()
            until(lambda: own() == 0, "the end of its polls")


@pytest.mark.alone  # beside others it may have too little traffic for a minute
def test_timers_are_tried_for_a_socket_too(lab: Lab, napctl: Napctl) -> None:
    with echo(lab, wait_in="recv", cpus={lab.server.cpu}) as server, datagrams(lab, server, 16):
        fed(lab, server)

        def tried() -> tuple[Trial, ...]:
            done = napctl("attach", server.pid, "--window", 0, "--latency-budget", "60us", "--json")
            assert napctl("detach", server.pid).status == 0
            trials = from_json(json.dumps(done.json["timer"]), TimerChoice).trials
            return trials if all(each.cpu_share is not None for each in trials) else ()

        trials = until(tried, "traffic enough")

        assert [each.gro_flush_timeout_ns for each in trials] == list(TIMERS_NS[:2])
        assert all(each.cpu_share for each in trials)
        assert set(polling_of(server.pid).values()) == {OFF}


@pytest.mark.parametrize("wait_in", ["poll", "select"])
def test_a_server_that_waits_in_poll_or_select_is_refused_with_the_reason_and_untouched(
    wait_in: str, lab: Lab, napctl: Napctl
) -> None:
    if read_global("core/busy_poll"):
        pytest.skip("net.core.busy_poll is set on this machine")
    wait = {"select": "select.select([here], [], [])", "poll": "poll.poll()"}[wait_in]
    service = f"""
        import select, socket
        here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        here.bind(("{lab.server.address}", 7777))
        poll = select.poll()
        poll.register(here, select.POLLIN)
        print("ready", flush=True)
        while True:
            {wait}
            here.sendto(*here.recvfrom(2048))
    """
    with python(lab.server, service) as pid:
        with lab.client.namespace.entered():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.settimeout(30)
            client.connect((lab.server.address, 7777))
            client.send(b"x")
            assert client.recv(9) == b"x"
        before = state_of(lab.server)

        fitness = only_socket(explained(napctl, pid, status=1))
        refused = napctl("attach", pid, "--window", 0)

        assert fitness.judgement == "does not fit"
        assert "net.core.busy_poll" in fitness.why
        assert refused.failed_with(3, "net.core.busy_poll", f"({pid})")
        assert set(polling_of(pid).values()) == {OFF}
        assert state_of(lab.server) == before
        assert napctl.live() == []


XDP = """
    import ctypes, mmap, os, socket, struct, time
    here = socket.socket(44, socket.SOCK_RAW, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    def check(result):
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if BIND:
        SOL_XDP, FRAMES, SIZE = 283, 64, 4096
        area = mmap.mmap(-1, FRAMES * SIZE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        registration = struct.pack("=QQIIII", address, FRAMES * SIZE, SIZE, 0, 0, 0)
        try:
            check(libc.setsockopt(here.fileno(), SOL_XDP, 4, registration, len(registration)))
            for ring in (5, 6, 2):  # XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING
                here.setsockopt(SOL_XDP, ring, FRAMES)
            # struct sockaddr_xdp: family, flags (XDP_COPY), ifindex, queue, shared descriptor
            bound = struct.pack("=HHIII", 44, 2, socket.if_nametoindex("server0"), 0, 0)
            check(libc.bind(here.fileno(), bound, len(bound)))
        except OSError as error:
            print("not here", error, flush=True) if error.errno not in (1, 22, 95) else print("not here", flush=True)
            time.sleep(60)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("bound", [False, True])
def test_an_xdp_socket_is_recognised_and_a_dry_run_says_what_is_known_of_it(
    bound: bool, lab: Lab, napctl: Napctl
) -> None:
    with python(lab.server, XDP.replace("BIND", str(bound))) as pid:
        before = state_of(lab.server)
        done = napctl("attach", pid, "--dry-run", "--json")
        xdp = only_socket(from_json(done.stdout, Fitness))

        assert (xdp.kind, xdp.pid) == ("xdp", pid)
        assert done.stderr == ""
        if xdp.napi_id is None:  # the kernel tells it of a bound one at most
            assert (xdp.judgement, done.status) == ("nothing to poll", 1)
        else:
            assert bound
            assert xdp.napi_id in {each.napi_id for each in lab.server.napis()}
            assert (xdp.judgement, done.status) == ("fits", 0)
        assert state_of(lab.server) == before


def test_a_ring_without_a_socket_is_recognised_and_refused_honestly(lab: Lab, napctl: Napctl) -> None:
    ring = """
        import ctypes, time
        params = ctypes.create_string_buffer(120)
        found = ctypes.CDLL(None).syscall(425, 8, params)
        print("ready" if found >= 0 else "not here", flush=True)
        time.sleep(60)
    """
    with python(lab.server, ring) as pid:
        one = only_socket(explained(napctl, pid, status=1))
        refused = napctl("attach", pid)

        assert (one.kind, one.judgement, one.napi_id) == ("io_uring", "nothing to poll", None)
        assert "no NAPI instance" in one.why
        assert refused.failed_with(3, "io_uring", f"ring {one.fd}", "nothing was changed")


def test_an_asyncio_service_of_datagrams_fits_on_one_queue_and_is_attached(lab: Lab, napctl: Napctl) -> None:
    with echo(lab) as server:
        fed(lab, server)
        before = state_of(lab.server)

        assert explained(napctl, server.pid, status=0).instances[0].judgement == "fits"
        assert napctl("attach", server.pid, "--window", 0, "--defer-us", 200).status == 0
        assert [each.prefer_busy_poll for each in params_of(server.pid).values()] == [True]
        assert set(polling_of(server.pid).values()) == {OFF}
        fed(lab, server)
        assert napctl("detach", server.pid).status == 0
        assert state_of(lab.server) == before


def test_an_asyncio_service_of_datagrams_on_two_queues_is_refused(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, echo(lab) as server:
        fed(lab, server)
        before = state_of(lab.server)

        assert napctl("attach", server.pid).failed_with(3, "any of 2 NAPI instances", "nothing was changed")
        assert state_of(lab.server) == before


def test_a_change_of_a_socket_that_is_not_permitted_is_undone_and_names_the_capability(
    lab: Lab, napctl: Napctl
) -> None:
    with echo(lab, wait_in="recv") as server:
        fed(lab, server)
        before = state_of(lab.server)

        done = napctl("attach", server.pid, "--window", 0, under=without("net_admin"))

        assert done.failed_with(4, "CAP_NET_ADMIN")
        assert set(polling_of(server.pid).values()) == {OFF}
        assert state_of(lab.server) == before


def test_the_socket_of_a_server_that_was_killed_is_gone_when_it_is_detached(lab: Lab, napctl: Napctl) -> None:
    with echo(lab, wait_in="recv") as server:
        fed(lab, server)
        assert napctl("attach", server.pid, "--window", 0, "--defer-us", 200).status == 0
        server.process.kill()
        server.process.wait()

        told = napctl("detach", server.pid, "--json").json

        assert {row["setting"]: row["outcome"] for row in told["settings"]} == {
            "busy_poll_usecs": "gone",
            "prefer_busy_poll": "gone",
            "defer_hard_irqs": "restored",
            "gro_flush_timeout_ns": "restored",
            "irq_suspend_timeout_ns": "restored",
        }


def test_workers_that_block_in_recv_are_detached_by_the_pid_of_any_of_them(lab: Lab, napctl: Napctl) -> None:
    with echo(lab, wait_in="recv", workers=2) as server:

        def all_fed() -> bool:
            fed(lab, server)
            running: Callable[[int], processes.Process | None] = processes.process
            found = [each for pid in server.workers if (each := running(pid)) is not None]
            return len({each.process.pid for each in examine("echo", found).plain_sockets}) == 2

        until(all_fed, "datagrams for both")
        before = state_of(lab.server)
        assert napctl("attach", server.pid, "--window", 0, "--defer-us", 200).status == 0
        assert [set(polling_of(pid).values()) for pid in server.workers] == [{ON}] * 2

        assert napctl("detach", server.workers[1]).status == 0
        assert [set(polling_of(pid).values()) for pid in server.workers] == [{OFF}] * 2
        assert state_of(lab.server) == before
