"""Notifications: what changes at a device is told as it happens."""

import select
import time
from collections.abc import Iterator

import pytest

from napctl.kernel.monitor import Monitor, Notice
from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import Lab
from tests.lab.helpers import in_namespace

pytestmark = pytest.mark.lab


def notices(monitor: Monitor, seconds: float) -> Iterator[Notice]:
    """As they come, until the time is over."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        select.select(monitor.sources, [], [], left)
        yield from monitor.waiting()


def heard(netns: NetworkNamespace, wanted: set[str], *commands: tuple[str, ...]) -> list[Notice]:
    """What is told from the commands on, until all that is wanted was told."""
    with Monitor(netns) as monitor:
        for command in commands:
            in_namespace(netns, *command)
        found: list[Notice] = []
        for notice in notices(monitor, 60):
            found.append(notice)
            if wanted <= {each.what for each in found}:
                return found
    raise AssertionError((wanted, found))


@pytest.fixture
def tun() -> Iterator[NetworkNamespace]:
    with NetworkNamespace.create() as netns:
        in_namespace(netns, "ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
        in_namespace(netns, "ip", "link", "set", "tun0", "up")
        yield netns


def test_changed_coalescing_is_told(tun: NetworkNamespace) -> None:
    (notice,) = heard(tun, {"coalescing"}, ("ethtool", "-C", "tun0", "rx-frames", "7"))
    assert (notice.what, notice.device) == ("coalescing", "tun0")


def test_a_link_that_goes_down_and_up_is_told(lab: Lab) -> None:
    down, up = ("ip", "link", "set", "server0", "down"), ("ip", "link", "set", "server0", "up")
    found = heard(lab.server.namespace, {"link down", "link up"}, down, up)
    told = [each.what for each in found if each.device == "server0" and each.what.startswith("link")]
    assert told[:2] == ["link down", "link up"]  # ids are read in between, or afterwards


def test_napi_ids_that_a_link_reset_has_renumbered_are_told(lab: Lab) -> None:
    """veth makes its NAPI instances anew when it comes up (veth_napi_enable() in drivers/net/veth.c)."""
    before = [napi.napi_id for napi in lab.server.napis()]
    down, up = ("ip", "link", "set", "server0", "down"), ("ip", "link", "set", "server0", "up")
    found = heard(lab.server.namespace, {"napi ids"}, down, up)
    assert found[-1].ifindex == lab.server.napis()[0].ifindex
    assert [napi.napi_id for napi in lab.server.napis()] != before


def test_changed_channels_are_told() -> None:
    with Lab.build(queues=2) as lab:
        found = heard(lab.server.namespace, {"channels"}, ("ethtool", "-L", "server0", "rx", "1"))
        assert found[0].device == "server0"


def test_a_device_that_is_removed_is_told(tun: NetworkNamespace) -> None:
    found = heard(tun, {"device gone"}, ("ip", "link", "del", "tun0"))
    assert found[-1].device == "tun0"


def test_listening_ends_when_its_time_is_over(tun: NetworkNamespace) -> None:
    start = time.monotonic()
    with Monitor(tun) as monitor:
        assert list(notices(monitor, 0.2)) == []
    assert 0.2 <= time.monotonic() - start < 60


def test_a_port_that_leaves_its_bridge_is_not_gone() -> None:
    with NetworkNamespace.create() as netns:
        for words in ("add br0 type bridge", "add wire0 type veth peer wire1", "set wire0 up", "set wire1 up"):
            in_namespace(netns, "ip", "link", *words.split())
        changes = (("ip", "link", "set", "wire0", *each.split()) for each in ("master br0", "nomaster", "down"))
        found = heard(netns, {"link down"}, *changes)
    assert not [each for each in found if each.what == "device gone"]
