"""What attach refuses, and why: one line that names the obstacle, and nothing changed."""

import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.attach.inspect_target import examine
from napctl.kernel import processes
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, memcached
from tests.lab.helpers import UNSET, Napctl, another_memcached, ask, ending, params_of, until

pytestmark = pytest.mark.lab


def test_a_second_attach_of_the_same_target_is_refused_and_changes_nothing(
    server: Server, client: socket.socket, napctl: Napctl
) -> None:
    assert napctl("attach", server.pid, "--window", "0s").status == 0
    attached, live = napctl.machine(server.pid), napctl.live()

    second = napctl("attach", server.pid, "--defer-hard-irqs", 5)

    assert second.failed_with(2, f"memcached ({server.pid})", "already attached", f"napctl detach {server.pid}")
    assert napctl.machine(server.pid) == attached
    assert napctl.live() == live


def test_a_second_server_on_the_same_napi_instance_is_refused(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    (napi,) = lab.server.napis()
    with another_memcached(lab, 11300) as other, ask(lab, other):
        assert napctl("attach", server.pid, "--window", "0s").status == 0
        attached = napctl.machine(server.pid)

        second = napctl("attach", other.pid)

        assert second.failed_with(2, f"NAPI {napi.napi_id}", f"memcached ({server.pid})")
        assert napctl.machine(server.pid) == attached
        assert set(params_of(other.pid).values()) == {UNSET}


def test_an_epoll_instance_over_two_napi_instances_is_refused_and_both_are_named(napctl: Napctl) -> None:
    with Lab.build(queues=2) as lab, ending(memcached(lab)) as server, ExitStack() as connections:
        found = processes.process(server.pid)
        assert found is not None

        def both() -> bool:  # veth's queue follows the flow's hash: each connection has an even chance
            connections.enter_context(ask(lab, server))
            return len(examine(found.name, [found]).feeding) == 2

        until(both, "connections over both queues")
        before = napctl.machine(lab.server)

        done = napctl("attach", server.pid)

        ids = [str(napi.napi_id) for napi in lab.server.napis()]
        assert done.failed_with(3, *(f"NAPI {number}" for number in ids))
        assert napctl.machine(lab.server) == before


def test_a_server_reached_over_loopback_alone_is_refused(lab: Lab, server: Server, napctl: Napctl) -> None:
    with another_memcached(lab, 11300) as local, ask(lab, local, inside=lab.server.namespace, address="127.0.0.1"):
        before = napctl.machine(lab.server)

        assert napctl("attach", local.pid).failed_with(3, f"memcached ({local.pid})", "loopback")
        assert napctl.machine(lab.server) == before


def test_a_process_without_epoll_is_refused(lab: Lab, napctl: Napctl) -> None:
    with lab.server.start(["sleep", "60"]) as sleeper:
        try:
            until(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n", "sleep to run")
            assert napctl("attach", sleeper.pid).failed_with(3, f"sleep ({sleeper.pid})", "no epoll instance")
        finally:
            sleeper.send_signal(signal.SIGKILL)


def test_a_kernel_thread_is_refused(lab: Lab, napctl: Napctl) -> None:
    (napi,) = lab.server.napis()

    assert napctl("attach", napi.thread_pid).failed_with(2, str(napi.thread_pid), "no epoll instance")


def test_a_name_that_several_processes_have_is_refused_and_their_pids_are_listed(
    lab: Lab, unusual: str, napctl: Napctl
) -> None:
    name = Path(unusual).name
    with another_memcached(lab, 11300, program=unusual) as one, another_memcached(lab, 11301, program=unusual) as two:
        done = napctl("attach", name)

        assert done.failed_with(2, name, str(one.pid), str(two.pid))
