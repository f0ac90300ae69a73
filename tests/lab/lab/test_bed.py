"""The bed: built as promised, and gone afterwards, whatever ends the process that holds it."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napctl.kernel import netdev
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab import standing
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import memcached, serve
from napctl.model.errors import BadInput, NapctlError, Unsupported
from tests.lab.helpers import until

pytestmark = pytest.mark.lab

HOLDER = """
import json, sys, time
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import memcached
spec = LoadSpec(rate_per_second=1000, seconds=60, sleeps=True)
with Lab.build() as lab, memcached(lab) as server, started(lab, server, spec) as load:
    load.wait_for_warmup()
    ends = (lab.server, lab.client)
    print(json.dumps({
        "inodes": [end.namespace.inode for end in ends],
        "pids": [server.pid, load.process.pid, *(napi.thread_pid for end in ends for napi in end.napis())],
    }), flush=True)
    time.sleep(60)
"""


def exists(inode: int) -> bool:
    found = NetworkNamespace.find(inode)
    if found is not None:
        found.close()
    return found is not None


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def napi_threads(lab: Lab) -> list[int]:
    return [napi.thread_pid for end in (lab.server, lab.client) for napi in end.napis() if napi.thread_pid]


Interface = tuple[str, int, bool]


def machine() -> set[Interface]:
    return {(link.name, link.ifindex, link.up) for link in links()}


def assert_as_before(before: set[Interface]) -> None:
    """Of the machine's interfaces none is another one, and none is the lab's; somebody else may have made one."""
    now = machine()
    assert before <= now
    assert not {"server0", "client0"} & {name for name, _, _ in now}


def open_descriptors() -> int:
    gc.collect()  # what earlier tests have left is not closed meanwhile
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("queues", [1, 2, 4])
def test_every_queue_has_a_napi_instance_with_a_thread_on_its_ends_cpu(queues: int) -> None:
    with Lab.build(queues=queues) as lab:
        for end in (lab.server, lab.client):
            pids = [napi.thread_pid for napi in end.napis()]
            assert len(pids) == queues
            for pid in pids:
                assert pid is not None
                assert os.sched_getaffinity(pid) == {end.cpu}
                assert Path(f"/proc/{pid}/comm").read_text().startswith(f"napi/{end.device}-")


def test_both_ends_reach_each_other_and_nothing_else() -> None:
    with Lab.build() as lab, memcached(lab) as server:
        for end in (lab.server, lab.client):
            assert {link.name for link in links(end.namespace)} == {"lo", end.device}
        assert server.process.poll() is None


def test_an_idle_bed_is_silent() -> None:
    with Lab.build() as lab:
        time.sleep(0.5)
        assert [link.rx_packets for end in (lab.server, lab.client) for link in links(end.namespace)] == [0] * 4


def test_nothing_is_left_and_the_machines_interfaces_are_as_before() -> None:
    before = machine()
    with Lab.build(queues=2) as lab, memcached(lab) as server:
        inodes = [lab.server.namespace.inode, lab.client.namespace.inode]
        pids = [server.pid, *napi_threads(lab)]
        assert all(exists(inode) for inode in inodes)
        assert_as_before(before)
    until(lambda: not any(map(exists, inodes)), "the namespaces to go")
    until(lambda: not any(map(runs, pids)), "what ran in them to end")
    assert_as_before(before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_process_that_holds_it_is_ended(number: signal.Signals) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with holder:
        assert holder.stdout is not None
        told = json.loads(holder.stdout.readline())
        assert all(exists(inode) for inode in told["inodes"])
        assert all(runs(pid) for pid in told["pids"])
        holder.send_signal(number)
        holder.wait(60)
    until(lambda: not any(map(runs, told["pids"])), "what ran there to end")
    until(lambda: not any(map(exists, told["inodes"])), "the namespaces to go")


def test_leaving_ends_what_was_started_and_not_stopped() -> None:
    with Lab.build() as lab:
        process = lab.server.start(["sleep", "60"])
    assert process.wait(60) == -signal.SIGKILL


def test_a_child_runs_in_its_ends_namespace_on_its_cpu_as_the_user_asked_for() -> None:
    with Lab.build() as lab, memcached(lab) as server:
        with NetworkNamespace.of_process(server.pid) as namespace:
            assert namespace.inode == lab.server.namespace.inode
        assert os.sched_getaffinity(server.pid) == {lab.server.cpu}
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_a_namespace_is_found_by_its_inode_while_it_lives_and_not_afterwards() -> None:
    with NetworkNamespace.current() as here, NetworkNamespace.create() as other:
        inode = other.inode
        assert inode != here.inode
        with other.entered(), NetworkNamespace.current() as inside:
            assert inside.inode == inode
        with NetworkNamespace.current() as back:
            assert back.inode == here.inode
        assert exists(inode)
    until(lambda: not exists(inode), "it to go")


def test_up_and_down() -> None:
    if standing.standing():
        pytest.skip("a lab stands on this machine")
    before = machine()
    standing.up(2)
    try:
        with pytest.raises(BadInput, match="already"):
            standing.up(1)
        with NetworkNamespace.named("napctl-server") as server:
            assert {link.name for link in links(server)} == {"lo", "server0"}
            inode = server.inode
    finally:
        assert list(standing.down()) == ["napctl-server", "napctl-client"]
    until(lambda: not exists(inode), "it to go")
    assert not standing.down()
    assert_as_before(before)


def test_a_server_that_cannot_start_is_reported_in_its_own_words() -> None:
    with Lab.build() as lab, pytest.raises(NapctlError, match=r"memcached ended at its start: .*Cannot assign"):
        serve(lab, ["memcached", "-l", "10.199.0.77"], 11211, user="nobody")


def test_a_server_that_does_not_listen_is_ended() -> None:
    with Lab.build() as lab, pytest.raises(NapctlError, match="does not accept connections on port 99"):
        serve(lab, ["sleep", "60"], 99, patience_s=0.2)


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unsupported, match="apt-get install iproute2"):
        Lab.build()


def test_a_cpu_that_is_not_there_is_bad_input() -> None:
    with pytest.raises(BadInput, match="CPU 4096"):
        Lab.build(server_cpu=4096)


def test_building_fails_in_one_line_and_leaves_nothing() -> None:
    descriptors = open_descriptors()
    with pytest.raises(NapctlError) as raised:
        Lab.build(queues=100_000)
    assert "\n" not in str(raised.value)
    assert open_descriptors() == descriptors


def test_without_the_capability_it_is_named() -> None:
    words = "from napctl.lab.bed import Lab; Lab.build()"
    command = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, "-c", words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "NotPermitted: creating a network namespace needs CAP_SYS_ADMIN" in done.stderr


def test_a_kernel_without_deferral_of_single_napi_instances_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.13 their settings are not among what the kernel tells, and it knows no napi-set."""
    for number in [number for number, attribute in netdev.NAPI.items() if "flush" in attribute.name]:
        monkeypatch.delitem(netdev.NAPI, number)
    spec = LoadSpec(rate_per_second=100, seconds=1)
    with (
        Lab.build() as lab,
        memcached(lab) as server,
        pytest.raises(Unsupported, match=r"\(Linux 6\.13\)"),
        started(lab, server, spec),
    ):
        pass
