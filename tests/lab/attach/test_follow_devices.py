"""What happens to attached devices, down to the last of it; and that others, and their drivers, are left in peace."""

import select
import socket
from collections.abc import Iterator

import pytest

from napctl.attach.follow_devices import Devices
from napctl.attach.inspect_target import examine
from napctl.kernel import processes
from napctl.kernel.epoll_instances import SAMPLE
from napctl.kernel.ethtool import Ethtool
from napctl.kernel.ethtool_ioctl import EthtoolIoctl
from napctl.kernel.links import links_named
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.lab.servers import Server
from napctl.model.machine import Napi
from tests.lab.helpers import in_namespace

pytestmark = pytest.mark.lab


@pytest.fixture
def netns() -> Iterator[NetworkNamespace]:
    """With a pair that is up, wire0 and wire1."""
    with NetworkNamespace.create() as netns:
        in_namespace(netns, "ip", "link", "add", "wire0", "type", "veth", "peer", "wire1")
        for name in ("wire0", "wire1"):
            in_namespace(netns, "ip", "link", "set", name, "up")
        yield netns


def test_that_a_device_was_removed_is_told_also_by_who_does_not_follow_it_any_more(netns: NetworkNamespace) -> None:
    """It goes between two checks: what is attached of it is forgotten before its notices are read."""
    (link,) = links_named(netns, ["wire0"])
    devices = Devices()
    try:
        assert devices.follow([(netns.inode, link.ifindex)]) == ()
        in_namespace(netns, "ip", "link", "del", "wire0")
        told = devices.follow(())
        inode, notice = told[-1]
        assert (inode, notice.what, notice.device) == (netns.inode, "device gone", "wire0")
        assert devices.sources == ()
        assert devices.follow(()) == (), "once"
    finally:
        devices.follow(())


def test_of_other_devices_nothing_is_told_and_nothing_is_read_again(
    netns: NetworkNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of them come and go, as where containers do."""
    (link,) = links_named(netns, ["wire0"])
    devices, reads = Devices(), list[int | None]()

    def napis(self: Netdev, ifindex: int | None = None) -> list[Napi]:
        reads.append(ifindex)
        return read(self, ifindex)

    read = Netdev.napis
    monkeypatch.setattr(Netdev, "napis", napis)
    try:
        assert devices.follow([(netns.inode, link.ifindex)]) == ()
        reads.clear()
        for words in ("add pod0 type veth peer pod1", "set pod0 up", "set pod1 up", "set pod0 down", "del pod0"):
            in_namespace(netns, "ip", "link", *words.split())
        heard = select.poll()
        for source in devices.sources:
            heard.register(source, select.POLLIN)
        assert heard.poll(0), "they were heard of"
        assert devices.notices() == ()
        assert reads == []

        in_namespace(netns, "ip", "link", "set", "wire0", "down")
        assert [notice.what for _, notice in devices.notices()] == ["link down"]
        assert reads == [link.ifindex]
    finally:
        devices.follow(())


def test_a_look_asks_drivers_for_nothing_but_their_names(
    server: Server, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coalescing, rings, channels and speeds may take a driver's locks, and a message to the firmware of the NIC."""

    def asked(*_: object) -> None:
        raise AssertionError("a question to the driver")

    for name in ("coalescing", "rings", "channels", "speed_mbps"):
        monkeypatch.setattr(Ethtool, name, asked)
    monkeypatch.setattr(EthtoolIoctl, "queue_coalescing", asked)
    me = processes.process(server.pid)
    assert me is not None
    found = examine("memcached", [me], 0, SAMPLE)
    (device,) = {each.device.name: each.device for each in found.napis.values()}.values()
    assert (device.driver, len(device.napis)) == ("veth", 1)
