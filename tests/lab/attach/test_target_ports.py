"""Which processes are meant: by the port on which they listen, on the running kernel."""

import re
import subprocess
import sys

import pytest

from napctl.attach.target import complete
from napctl.kernel import processes
from napctl.kernel.listeners import listeners
from napctl.lab.bed import Lab
from napctl.lab.servers import children
from tests.lab.helpers import another_memcached, ask, without
from tests.lab.targets import listening, pids_of, refusal

pytestmark = pytest.mark.lab


def test_a_port_means_the_process_that_listens_on_it_in_whatever_network_namespace(lab: Lab, port: int) -> None:
    with another_memcached(lab, port) as server, ask(lab, server):
        for target in (f":{port}", f"port:{port}"):
            assert pids_of(target) == [server.pid]
        (listener,) = listeners(port)
        assert (listener.protocol, listener.address) == ("tcp", "0.0.0.0")
        assert listener.netns == lab.server.namespace.inode
        assert f"port:{port}" in complete("port:")
        assert f":{port}" in complete(f":{port}"[:3])
        (held,) = processes.holders_of_sockets([listener.inode]).values()
        assert [pid for pid, _ in held] == [server.pid]
    assert "nothing listens" in refusal(f":{port}")


@pytest.mark.parametrize(("kind", "address"), [("tcp", "::"), ("udp", "127.0.0.1"), ("udp", "::")])
def test_a_port_of_any_protocol_is_found(kind: str, address: str, lab: Lab, port: int) -> None:
    with listening(lab, port, kind, address) as pid:
        assert pids_of(f":{port}") == [pid]
        assert [(each.protocol, each.address) for each in listeners(port)] == [(kind, address)]


def test_a_port_whose_socket_a_tree_shares_means_the_tree(lab: Lab, port: int) -> None:
    with listening(lab, port, forks=2) as pid:
        assert pids_of(f":{port}") == [pid, *children(pid)]


def test_without_the_right_to_look_into_processes_a_port_names_the_capability(lab: Lab, port: int) -> None:
    with listening(lab, port):
        code = f"from napctl.attach.target import *; resolve(parse(':{port}'))"
        command = [*without("sys_ptrace"), sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)

        assert re.search(rf"NotPermitted: :{port}: .*CAP_SYS_PTRACE is missing$", done.stderr), done.stderr


def test_a_port_of_unrelated_processes_is_refused_and_they_are_named(lab: Lab, port: int) -> None:
    with listening(lab, port, "tcp") as one, listening(lab, port, "udp") as two:
        why = refusal(f":{port}")

        assert "2 unrelated processes" in why
        assert f"({one}) on tcp" in why
        assert f"({two}) on udp" in why
        assert "network namespaces" not in why


def test_a_port_of_unrelated_processes_in_two_network_namespaces_is_refused_and_says_so(lab: Lab, port: int) -> None:
    with listening(lab, port) as one, listening(lab, port, at_client=True) as two:
        why = refusal(f":{port}")

    assert "in 2 network namespaces" in why
    assert f"({one}) on tcp in net:[{lab.server.namespace.inode}]" in why
    assert f"({two}) on tcp in net:[{lab.client.namespace.inode}]" in why


def test_a_socket_that_a_manager_passed_on_means_the_server(lab: Lab, port: int) -> None:
    """As with systemd.socket(5): who passed the socket holds it as well, and has many other children."""
    with listening(lab, port, forks=1, names=("systemd", "server")) as manager:
        assert pids_of(f":{port}") == children(manager)


def test_a_socket_that_only_managers_hold_means_them(lab: Lab, port: int) -> None:
    with listening(lab, port, forks=1, names=("systemd", "systemd")) as manager:
        assert pids_of(f":{port}") == [manager, *children(manager)]
