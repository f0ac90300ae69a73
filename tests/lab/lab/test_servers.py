"""The lab's servers: they answer, are made of what they are said to be, and leave nothing, however they end."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from napctl.kernel import processes
from napctl.kernel.open_files import open_files
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, run, started
from napctl.lab.servers import ForkingServer, Server, accepts, memcached, serve
from napctl.lab.webservers import haproxy, nginx, redis
from napctl.model.errors import BadInput, NapctlError
from tests.lab.helpers import ending, until
from tests.lab.other_servers import ROOT, bound, caddy, echo, echoed, web
from tests.lab.trial import fed_by

pytestmark = pytest.mark.lab

Protocol = Literal["memcached", "http", "redis"]

SERVERS: dict[str, tuple[Callable[[Lab], Server], Protocol, list[int], int]] = {
    # memcached has one more for accepting connections
    "memcached": (lambda lab: memcached(lab, threads=4), "memcached", [5], 1),
    "nginx": (nginx, "http", [0, 1, 1, 1, 1], 1),
    "nginx, reuseport": (lambda lab: nginx(lab, reuseport=True), "http", [0, 1, 1, 1, 1], 4),
    "haproxy": (haproxy, "http", [4], 1),
    "haproxy, shards": (lambda lab: haproxy(lab, shards=True), "http", [4], 4),
    "redis": (redis, "redis", [1], 1),
    "caddy": (caddy, "http", [1], 1),
    "asyncio": (web, "http", [1], 1),
    "asyncio, workers": (lambda lab: web(lab, workers=4), "http", [0, 1, 1, 1, 1], 4),
    "uvloop": (lambda lab: web(lab, uvloop=True), "http", [1], 1),
    "uvloop, workers": (lambda lab: web(lab, uvloop=True, workers=4), "http", [0, 1, 1, 1, 1], 4),
}
"""How it is started, what it speaks, epoll instances of its processes (the master first), its listening sockets."""

HOLDER = f"""
import json, sys, time
sys.path.insert(0, {str(ROOT)!r})
from napctl.lab.bed import Lab
from napctl.lab.webservers import haproxy, nginx, redis
from tests.lab.other_servers import caddy, echo, web
with Lab.build(queues=4) as lab:
    servers = [nginx(lab), haproxy(lab), redis(lab), caddy(lab), web(lab, workers=2), echo(lab, workers=2)]
    pids = [(server.process.pid, server.pid, *server.workers) for server in servers]
    print(json.dumps(sum(pids, ())), flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    with Lab.build(queues=4) as shared_lab:
        yield shared_lab


@pytest.fixture
def readable() -> Iterator[Path]:
    """A directory that every user can read, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="napctl-test-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def runs(pid: int) -> bool:
    return processes.process(pid) is not None


def pids_of(server: Server) -> list[int]:
    return [server.pid, *server.workers]


def answers(lab: Lab, server: Server, protocol: Protocol) -> bool:
    spec = LoadSpec(rate_per_second=2000, seconds=0.2, warmup_seconds=0.1, drain_seconds=10, protocol=protocol)
    result = run(lab, server, spec)
    return result.answered > 0 and result.unanswered == 0


@pytest.mark.parametrize("name", SERVERS)
def test_it_answers_with_the_epoll_instances_and_listeners_expected_and_leaves_nothing(
    shared_lab: Lab, name: str
) -> None:
    start, protocol, epoll_instances, listeners = SERVERS[name]
    with ending(start(shared_lab)) if name == "memcached" else start(shared_lab) as server:
        pids = pids_of(server)
        assert answers(shared_lab, server, protocol)
        assert [len(open_files(pid).epolls) for pid in pids] == epoll_instances
        assert bound(server, "tcp") == listeners
        assert all(os.sched_getaffinity(pid) == {shared_lab.server.cpu} for pid in pids)
    assert not any(map(runs, pids))
    assert not accepts(shared_lab, server)


@pytest.mark.parametrize("workers", [0, 4])
@pytest.mark.parametrize(("wait_in", "epoll_instances"), [("epoll", 1), ("recv", 0), ("poll", 0)])
def test_an_echo_answers_and_waits_as_it_is_said_to(
    shared_lab: Lab, wait_in: Literal["epoll", "recv", "poll"], epoll_instances: int, workers: int
) -> None:
    with echo(shared_lab, wait_in=wait_in, workers=workers) as server:
        pids = pids_of(server)
        serving = server.workers or [server.pid]
        assert echoed(shared_lab, server, 20) == 20
        assert bound(server, "udp") == len(serving) == max(workers, 1)
        assert [len(open_files(pid).epolls) for pid in serving] == [epoll_instances] * len(serving)
    assert not any(map(runs, pids))


def test_each_thread_of_memcached_has_one_napi_instance_if_it_is_told_how_many_there_are(shared_lab: Lab) -> None:
    with ending(memcached(shared_lab, threads=4, napi_ids=4)) as server:

        def napi_ids() -> list[int] | None:
            found = [napi for by_napi in fed_by([server.pid]) for napi in by_napi]
            return found if len(found) >= 4 else None

        with started(shared_lab, server, LoadSpec(rate_per_second=0, seconds=60, connections=64, sleeps=True)) as load:
            load.wait_for_warmup()
            found = until(napi_ids, "four NAPI instances")
    assert sorted(found or ()) == sorted(napi.napi_id for napi in shared_lab.server.napis())


def test_the_master_is_nginx_itself_and_its_workers_are_not_root(shared_lab: Lab) -> None:
    with nginx(shared_lab) as server:
        assert {Path(f"/proc/{pid}/exe").readlink().name for pid in pids_of(server)} == {"nginx"}
        assert Path(f"/proc/{server.pid}").stat().st_uid == 0
        assert all(Path(f"/proc/{pid}").stat().st_uid != 0 for pid in server.workers)


def test_a_server_that_forks_is_in_the_mount_namespace_of_all(shared_lab: Lab) -> None:
    with nginx(shared_lab) as server:
        for kind, same in (("mnt", True), ("pid", False)):
            spaces = {Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in pids_of(server)}
            assert (spaces == {Path(f"/proc/self/ns/{kind}").readlink()}) is same


@pytest.mark.parametrize("reuseport", [False, True])
def test_workers_outlive_a_master_that_is_killed_and_go_on_answering_until_the_server_is_stopped(
    shared_lab: Lab, reuseport: bool
) -> None:
    with nginx(shared_lab, reuseport=reuseport) as server:
        workers = server.workers
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not runs(server.pid), "the end of the master")
        assert server.workers == []
        assert answers(shared_lab, server, "http")
        assert all(map(runs, workers))
    assert not any(map(runs, workers))


def test_killing_what_holds_it_ends_all_of_it(shared_lab: Lab) -> None:
    with nginx(shared_lab) as server:
        pids = pids_of(server)
        server.process.kill()
        until(lambda: not any(map(runs, pids)), "the end of all")


def test_a_server_that_does_not_heed_a_request_to_end_is_killed(shared_lab: Lab) -> None:
    with nginx(shared_lab) as server:
        pids = pids_of(server)
        os.kill(server.pid, signal.SIGSTOP)
        server.stop(0.2)
        assert not any(map(runs, pids))


def test_a_server_that_ends_of_its_own_accord_is_seen_to_have_ended(shared_lab: Lab) -> None:
    with nginx(shared_lab) as server:
        os.kill(server.pid, signal.SIGQUIT)  # graceful, as `nginx -s quit`
        assert server.process.wait(60) == 0


@pytest.mark.alone
def test_its_files_go_with_it_and_none_are_made_elsewhere(
    shared_lab: Lab, readable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(readable))

    def files() -> set[Path]:
        """Another lab of this machine may make its own in /tmp."""
        places = (Path(place) for place in ("/run", "/tmp", "/var/log", "/var/lib/nginx"))
        return {path for place in places for path in place.glob("*") if "nginx" in path.name} | set(readable.iterdir())

    before = files()
    with nginx(shared_lab) as server:
        (made,) = files() - before
        assert made.parent == readable
        assert made.name.startswith("napctl-lab-")
        workers = server.workers
        os.kill(server.pid, signal.SIGHUP)  # its configuration is still there
        until(lambda: len(server.workers) == 4 and not set(workers) & set(server.workers), "four other workers")
    assert files() == before


def test_it_runs_on_the_cpus_asked_for(shared_lab: Lab) -> None:
    cpus = {shared_lab.server.cpu, shared_lab.client.cpu}
    with nginx(shared_lab, cpus=cpus) as server:
        assert all(os.sched_getaffinity(pid) == cpus for pid in pids_of(server))
    with redis(shared_lab, cpus=cpus) as single:
        assert os.sched_getaffinity(single.pid) == cpus


def test_a_server_that_forks_and_cannot_start_is_reported_in_its_own_words(shared_lab: Lab) -> None:
    with nginx(shared_lab), pytest.raises(NapctlError, match=r"nginx ended at its start: .*could not bind"):
        nginx(shared_lab, workers=2)


def test_a_server_that_forks_is_not_started_as_somebody_else(shared_lab: Lab) -> None:
    with pytest.raises(BadInput, match="changes its user itself"):
        serve(shared_lab, ["nginx"], 80, forks=True, user="nobody")


def test_what_was_not_stopped_ends_with_the_lab() -> None:
    with Lab.build(queues=4) as lab:
        servers = [nginx(lab), haproxy(lab), redis(lab), web(lab, workers=2)]
        pids = [pid for server in servers for pid in pids_of(server)]
        assert all(map(runs, pids))
    until(lambda: not any(map(runs, pids)), "the end of all servers")
    for server in servers:
        server.stop()  # removes files
    assert isinstance(servers[0], ForkingServer)


def test_nothing_runs_on_and_no_file_is_left_when_the_process_that_holds_the_lab_is_killed(readable: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(readable)}
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout is not None
        pids = json.loads(holder.stdout.readline())
        assert len(pids) >= 6 * 2
        assert all(map(runs, pids))
        assert len(list(readable.iterdir())) == 3  # of nginx, haproxy and caddy
        holder.kill()
    until(lambda: not any(map(runs, pids)), "the end of all servers")
    until(lambda: not any(readable.iterdir()), "the end of their files")
