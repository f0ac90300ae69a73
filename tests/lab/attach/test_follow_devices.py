"""What happens to attached devices, down to the last of it."""

from collections.abc import Iterator

import pytest

from napctl.attach.follow_devices import Devices
from napctl.kernel.links import links_named
from napctl.kernel.namespaces import NetworkNamespace
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
