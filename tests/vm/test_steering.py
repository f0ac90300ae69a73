"""Steering on a real driver with several queues: virtio_net with four, over which a tap spreads connections."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from napctl.attach.inspect_target import Examination, examine
from napctl.attach.steering import Group, groups, outgrown
from napctl.kernel import processes
from napctl.kernel.netdev import Netdev
from napctl.lab.bed import End, Lab
from napctl.lab.servers import Server
from napctl.lab.webservers import nginx
from napctl.model.driver_quirks import PERSISTENT
from napctl.model.settings import NapiSettings
from tests.lab.following import (
    Clients,
    all_unset,
    attached,
    closed,
    connections,
    new_connections_are_spread,
    queues_of,
    settings_of,
    steered,
)
from tests.lab.helpers import PREFERS, Napctl, params_of, until
from tests.vm.nics_lab import QUEUES, at, lab_of_nics
from tests.vm.wire import run

MANY = 30
NOW = ("--window", "0s", "--defer-us", "2000")
"""A timer that an emulated CPU can follow."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with lab_of_nics() as lab:
        yield lab


@pytest.fixture
def server(lab: Lab) -> Iterator[Server]:
    with nginx(lab, workers=QUEUES, reuseport=True, patience_s=60) as server:
        until(lambda: groups(examined(server)), "its workers to wait on their listeners")
        yield server


def test_each_worker_of_nginx_serves_one_queue_until_it_is_detached(lab: Lab, server: Server, napctl: Napctl) -> None:
    before = settings_of(lab)
    assert len(before) == QUEUES
    assert new_connections_are_spread(lab, server, MANY)
    closed(server, server.workers)

    # As a program of its own: what this writes is lost in a fork of the tests (exit status 6).
    done = Napctl(napctl.state)("attach", server.pid, "--steer", *NOW, timeout_s=120)

    assert done.status == 0, done
    assert all(map(attached, settings_of(lab)))
    assert all(PREFERS in params_of(pid).values() for pid in server.workers)
    with connections(lab, server, MANY):
        found = queues_of(*server.workers)
        assert steered(found, QUEUES), found
    with Clients(lab, server, count=4):
        (activity,) = napctl("attached", "--json", timeout_s=120).json["attachments"]
        assert activity["suspensions_per_second"] > 0, activity
    closed(server, server.workers)

    assert napctl("detach", server.pid, timeout_s=120).status == 0
    assert settings_of(lab) == before
    assert all_unset(*server.workers)
    assert napctl.live() == []
    assert new_connections_are_spread(lab, server, MANY)


def test_what_a_steered_group_was_steered_to_is_outgrown_by_other_channels(lab: Lab, server: Server) -> None:
    group = only_group(server)
    assert (group.queues, group.misfit) == (QUEUES, None)
    inodes = [member.listener.inode for member in group.members]

    at(lab.server, f"ethtool -L {lab.server.device} combined 2")

    with connections(lab, server, 8):
        assert "4 workers for 2 RX queues" in (outgrown(inodes, examined(server)) or "")
        assert "4 workers for 2 RX queues" in (only_group(server).misfit or "")
    at(lab.server, f"ethtool -L {lab.server.device} combined {QUEUES}")
    with connections(lab, server, 8):
        assert outgrown(inodes, examined(server)) is None


def test_a_flap_of_the_link_leaves_the_settings_of_a_driver_that_keeps_them(lab: Lab) -> None:
    assert "virtio_net" in PERSISTENT
    before = lab.server.napis()
    with Netdev(lab.server.namespace) as netdev:
        for number, napi in enumerate(before):
            netdev.set_napi(napi.napi_id, NapiSettings(defer_hard_irqs=1 + number, irq_suspend_timeout_ns=20_000_000))
    after = lab.server.napis()

    at(lab.server, f"ip link set {lab.server.device} down")
    at(lab.server, f"ip link set {lab.server.device} up")

    assert [each.settings.defer_hard_irqs for each in after] == [1, 2, 3, 4]
    assert lab.server.napis() == after


def test_a_bond_of_two_nics_is_not_steered(lab: Lab, server: Server) -> None:
    with bonded(lab.server, "virtio1"), bonded(lab.client, "e1000e1"), connections(lab, server, 20):
        assert "2 devices can feed it (server0 and virtio1)" in (only_group(server).misfit or "")


def examined(server: Server) -> Examination:
    running = [process for pid in server.workers if (process := processes.process(pid)) is not None]
    return examine("nginx", running).without_former_napis()


def only_group(server: Server) -> Group:
    (group,) = groups(examined(server))
    return group


@contextmanager
def bonded(end: End, nic: str) -> Iterator[None]:
    """Its address on a bond of its device and another one, over which connections are spread by their ports."""
    with ExitStack() as undo:
        run("ip", "link", "set", nic, "netns", f"/proc/{os.getpid()}/fd/{end.namespace.fd}")
        undo.callback(at, end, f"ip link set {nic} down netns 1")
        at(end, "ip link add bond0 type bond mode balance-xor xmit_hash_policy layer3+4 miimon 100")
        undo.callback(at, end, "ip link delete bond0")
        at(end, f"ip address delete {end.address}/24 dev {end.device}")
        for port in (end.device, nic):
            at(end, f"ip link set {port} down")
            at(end, f"ip link set {port} master bond0")
        at(end, "sysctl -qw net.ipv6.conf.bond0.disable_ipv6=1")
        at(end, f"ip address add {end.address}/24 dev bond0")
        at(end, "ip link set bond0 up")
        up = "MII Status: up"
        until(lambda: at(end, "cat /proc/net/bonding/bond0").count(up) == 3, "bond0 and both ports to be up", 30)
        yield
