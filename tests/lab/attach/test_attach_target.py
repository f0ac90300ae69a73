"""attach and detach: what they do to a running server, and what they leave alone."""

import json
import re
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest

from napctl.attach.inspect_target import examine
from napctl.kernel import processes
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import MEMCACHED_PORT, Server, children, memcached, serve
from napctl.model.activity import Attached
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.value import from_json
from napctl.model.window import own_polls
from tests.lab.conftest import LoadStarter
from tests.lab.following import settings_of
from tests.lab.helpers import (
    PREFERS,
    SUSPENDED,
    UNSET,
    Napctl,
    another_memcached,
    ask,
    ending,
    params_of,
    set_napi,
    set_params,
    until,
    wait_for_packets,
)
from tests.lab.trial import fed_by

pytestmark = pytest.mark.lab


def outcomes(report: dict[str, list[dict[str, str]]]) -> Counter[str]:
    return Counter(row["outcome"] for row in report["settings"])


@pytest.mark.alone
def test_the_attached_server_makes_most_polls_itself(lab: Lab, napctl: Napctl) -> None:
    """While it has a CPU: one that waits for its turn leaves its packets to the deferral timer."""
    spec = LoadSpec(rate_per_second=30_000, seconds=100, connections=16, warmup_seconds=0.1)
    with ending(memcached(lab)) as server, started(lab, server, spec) as load:
        load.wait_for_warmup()
        until(lambda: sum(sum(each.values()) for each in fed_by([server.pid])) == 16, "its connections")

        def most() -> bool:
            report = from_json(napctl("attach", server.pid, "--defer-us", 200, "--json").stdout, Attached)
            assert napctl("detach", server.pid).status == 0
            assert report.window is not None
            (napi,) = report.window.napis
            share = own_polls([napi], server.pid).polls / napi.polls.polls if napi.polls.polls else None
            assert report.server_poll_share in (None, share)
            return report.verdict == "active" and (report.server_poll_share or 0) > 0.5

        until(most, "a window in which it has its CPU", 30)


def test_detach_brings_back_exactly_what_status_showed_before(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    (napi,) = lab.server.napis()
    set_napi(lab, napi.napi_id, NapiSettings(defer_hard_irqs=3, gro_flush_timeout_ns=7000))
    worker = max(params_of(server.pid))
    set_params(server.pid, worker, EpollParams(busy_poll_usecs=11, busy_poll_budget=5, prefer_busy_poll=False))
    before = napctl.machine(server.pid)

    assert napctl("attach", server.pid, "--window", "0s").status == 0
    during = napctl.machine(server.pid)
    detached = napctl("detach", server.pid)

    assert during != before
    assert (detached.status, detached.stderr) == (0, "")
    assert napctl.machine(server.pid) == before
    assert before["pollers"][0]["params"]["busy_poll_usecs"] == 11
    assert napctl.live() == []


def test_only_the_epoll_instance_with_napi_sockets_is_touched(
    server: Server, client: socket.socket, napctl: Napctl
) -> None:
    assert set(params_of(server.pid).values()) == {UNSET}
    running = processes.process(server.pid)
    assert running is not None
    (fed,) = (instance.fd for instance in examine("memcached", [running]).instances if instance.sockets_by_napi)

    assert napctl("attach", server.pid, "--window", "0s").status == 0

    now = params_of(server.pid)
    assert len(now) == 2, "memcached -t 1 has an instance for its listener and one for its connections"
    assert now == {fd: PREFERS if fd == fed else UNSET for fd in now}


def test_only_the_napi_instance_that_feeds_the_server_is_touched(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, ending(memcached(lab)) as server, ask(lab, server):
        before = napctl.machine(lab.server)
        report = napctl("attach", server.pid, "--window", "0s", "--json").json
        (fed,) = (change["napi_id"] for change in report["transaction"]["changes"] if change["type"] == "napi")
        now = {napi.napi_id: napi.settings for napi in lab.server.napis()}
        (other,) = now.keys() - {fed}

        assert now[fed] == NapiSettings(**SUSPENDED, threaded="enabled")
        assert now[other] == NapiSettings(
            defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0, threaded="enabled"
        )
        assert napctl("detach", server.pid).status == 0
        assert napctl.machine(lab.server) == before


def test_each_option_sets_its_value(lab: Lab, server: Server, client: socket.socket, napctl: Napctl) -> None:
    device = ("--defer-hard-irqs", 7, "--defer-us", "50us", "--irq-suspend-timeout", "1ms")
    process = ("--busy-poll-usecs", 9, "--busy-poll-budget", 32)

    done = napctl("attach", server.pid, *device, *process, "--window", 0)

    assert done.status == 0
    assert settings_of(lab) == [
        NapiSettings(defer_hard_irqs=7, gro_flush_timeout_ns=50_000, irq_suspend_timeout_ns=10**6, threaded="enabled")
    ]
    assert EpollParams(busy_poll_usecs=9, busy_poll_budget=32, prefer_busy_poll=True) in params_of(server.pid).values()


def test_everything_attached_goes_with_detach_all(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = napctl.machine(server.pid)
    assert napctl("attach", server.pid, "--window", "0s").status == 0

    assert napctl("detach", "--all").status == 0
    assert napctl.machine(server.pid) == before
    assert napctl("detach", "--all").status == 0


def test_the_server_is_never_stopped_and_every_request_is_answered(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl
) -> None:
    running = load(20_000, seconds=100)
    states: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            for task in Path(f"/proc/{server.pid}/task").iterdir():
                states.add((task / "stat").read_text().rpartition(") ")[2][0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(3):
            assert napctl("attach", server.pid, "--window", "0s", "--defer-us", 200).status == 0
            assert napctl("detach", server.pid).status == 0
    finally:
        done.set()
        watcher.join()
    wait_for_packets(lab, 1_000)  # it goes on
    result = running.stop()

    assert states
    assert not states & set("tT")
    assert result.answered
    assert result.unanswered == 0


def test_nothing_that_could_stop_a_process_is_ever_called(
    server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    calls = "ptrace,kill,tkill,tgkill,rt_sigqueueinfo,pidfd_send_signal,process_madvise,pidfd_getfd"
    under = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", f"trace={calls}"]

    assert napctl("attach", server.pid, "--window", "0.1s", under=under).status == 0

    assert set(re.findall(r"^\d+ +(\w+)\(", (tmp_path / "trace").read_text(), re.M)) == {"pidfd_getfd"}


def test_detach_after_kill_9_of_the_server_restores_the_device(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = napctl.machine(lab.server)
    assert napctl("attach", server.pid, "--window", "0s").status == 0
    server.process.kill()
    server.process.wait()

    detached = napctl("detach", server.pid, "--json").json

    assert outcomes(detached) == Counter(gone=2, restored=3)
    assert napctl.machine(lab.server) == before
    assert napctl.live() == []


def test_recover_restores_what_a_dead_server_left_and_leaves_a_living_one_attached(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = napctl.machine(lab.server)
    assert napctl("attach", server.pid, "--window", "0s").status == 0
    attached = napctl.machine(lab.server)

    assert napctl("recover").stdout == "nothing to recover\n"
    assert napctl.machine(lab.server) == attached

    server.process.kill()
    server.process.wait()
    recovered = napctl("recover")

    assert recovered.status == 0
    assert "its server has ended" in recovered.stdout
    assert napctl.machine(lab.server) == before


def test_a_restarted_server_is_attached_and_what_the_dead_one_left_is_not_taken_for_former_values(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = napctl.machine(lab.server)
    assert napctl("attach", server.pid, "--window", 0).status == 0
    server.process.kill()
    server.process.wait()

    with ending(memcached(lab)) as successor, ask(lab, successor):
        assert napctl("attach", successor.pid, "--window", 0).status == 0
        assert [each.pid for each in napctl.live()] == [successor.pid]
        assert napctl("detach", successor.pid).status == 0

        assert napctl.machine(lab.server) == before


def test_detach_says_so_when_the_network_namespace_has_gone(napctl: Napctl) -> None:
    with Lab.build() as lab, ending(memcached(lab)) as server, ask(lab, server):
        assert napctl("attach", server.pid, "--window", "0s").status == 0

    detached = napctl("detach", server.pid, "--json")

    assert (detached.status, detached.stderr) == (0, "")
    assert outcomes(detached.json) == Counter(gone=5)
    assert napctl.live() == []


def test_a_device_setting_that_somebody_else_changed_is_left_alone_and_named(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    (napi,) = lab.server.napis()
    before = napctl.machine(server.pid)
    assert napctl("attach", server.pid, "--window", "0s").status == 0
    set_napi(lab, napi.napi_id, NapiSettings(gro_flush_timeout_ns=777_000))

    detached = napctl("detach", server.pid)
    (line,) = detached.stderr.splitlines()

    assert detached.status == 5
    assert line.startswith("napctl: ")
    assert f"NAPI {napi.napi_id}" in line
    assert "gro-flush-timeout is now 777us" in line
    assert settings_of(lab) == [
        NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=777_000, irq_suspend_timeout_ns=0, threaded="enabled")
    ]
    assert set(params_of(server.pid).values()) == {UNSET}
    set_napi(lab, napi.napi_id, NapiSettings(gro_flush_timeout_ns=0))
    assert napctl.machine(server.pid) == before


def test_an_epoll_setting_that_the_server_changed_itself_is_left_alone_and_named(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    assert napctl("attach", server.pid, "--window", "0s").status == 0
    (worker,) = (fd for fd, params in params_of(server.pid).items() if params == PREFERS)
    set_params(server.pid, worker, EpollParams(busy_poll_usecs=0, busy_poll_budget=8, prefer_busy_poll=True))

    detached = napctl("detach", server.pid)
    (line,) = detached.stderr.splitlines()

    assert detached.status == 5
    assert re.search(rf"epoll .*{worker} of memcached \({server.pid}\)", line)
    assert "busy_poll_budget is now 8" in line
    assert params_of(server.pid)[worker] == EpollParams(busy_poll_usecs=0, busy_poll_budget=8, prefer_busy_poll=False)
    assert settings_of(lab)[0].defer_hard_irqs == 0


def test_force_also_restores_what_somebody_else_changed(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    (napi,) = lab.server.napis()
    before = napctl.machine(server.pid)
    assert napctl("attach", server.pid, "--window", "0s").status == 0
    set_napi(lab, napi.napi_id, NapiSettings(gro_flush_timeout_ns=777_000))

    detached = napctl("detach", server.pid, "--force")

    assert (detached.status, detached.stderr) == (0, "")
    assert napctl.machine(server.pid) == before


def test_the_json_of_detach_tells_what_became_of_each_setting(
    server: Server, client: socket.socket, napctl: Napctl
) -> None:
    assert napctl("attach", server.pid, "--window", "0s").status == 0

    told = json.loads(napctl("detach", server.pid, "--json").stdout)

    assert {row["setting"]: (row["before"], row["outcome"]) for row in told["settings"]} == {
        "busy_poll_budget": (0, "restored"),
        "prefer_busy_poll": (False, "restored"),
        "defer_hard_irqs": (0, "restored"),
        "gro_flush_timeout_ns": (0, "restored"),
        "irq_suspend_timeout_ns": (0, "restored"),
    }


def test_a_name_does_as_well_as_a_pid(lab: Lab, unusual: str, napctl: Napctl) -> None:
    name = Path(unusual).name
    with another_memcached(lab, 11300, program=unusual) as server, ask(lab, server):
        before = napctl.machine(lab.server)

        report = napctl("attach", name, "--window", "0s", "--json").json
        detached = napctl("detach", name)

        assert report["transaction"]["pid"] == server.pid
        assert detached.status == 0
        assert napctl.machine(lab.server) == before


def test_a_container_needs_no_special_case(lab: Lab, napctl: Napctl) -> None:
    """A server in namespaces of its own: PID, mount, UTS and IPC besides the network's."""
    inner = ["memcached", "-t", "1", "-u", "root", "-l", lab.server.address, "-U", "0"]
    command = ["unshare", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc", *inner]
    with ending(serve(lab, command, MEMCACHED_PORT)) as wrapper, ask(lab, wrapper):
        (pid,) = until(lambda: children(wrapper.pid), "memcached")
        before = napctl.machine(pid)

        assert napctl("attach", pid, "--window", "0s").status == 0
        during = napctl.machine(pid)
        assert napctl("detach", pid).status == 0

        assert [poller["pid"] for poller in during["pollers"]] == [pid]
        assert napctl.machine(pid) == before
