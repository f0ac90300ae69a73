"""What the service does with the settings of real NICs: kept over a link reset and another hand, back in the end."""

from pathlib import Path

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.machine import Coalescing
from napctl.model.plan import RingSizes
from tests.lab.service.device_keeping import Keeping, entry
from tests.vm.test_apply import rings_of
from tests.vm.wire import Wire, run

E1000E = entry("e1000e0", coalescing=Coalescing(rx_usecs=45), rings=RingSizes(rx=512))
VIRTIO = entry("virtio1", coalescing=Coalescing(rx_usecs=20))


def test_coalescing_and_rings_are_kept_and_put_back(wire: Wire, state: Path) -> None:
    before, rings = wire.settings(), rings_of(wire.device)
    run("ip", "link", "set", "virtio1", "up")
    with NetworkNamespace.current() as netns:
        keeping = Keeping(netns, state)
        refused, *lines = keeping.look(VIRTIO, E1000E)
        assert "virtio1: the driver refuses rx-usecs 20" in refused
        assert any(f"rx-usecs {before['rx-usecs']} → 45, as the policy wants" in line for line in lines), lines
        assert (wire.settings()["rx-usecs"], rings_of(wire.device).rx) == (45, 512)

        run("ip", "link", "set", wire.device, "down")
        run("ip", "link", "set", wire.device, "up")
        keeping.look()
        assert (wire.settings()["rx-usecs"], rings_of(wire.device).rx) == (45, 512)
        wire.wait_for_link()

        keeping.look()
        keeping.later(10)
        run("ethtool", "-C", wire.device, "rx-usecs", "10")
        (line,) = [each for each in keeping.look() if wire.device in each]
        assert line.endswith("rx-usecs 10 → 45, as somebody else had changed it")
        assert wire.settings()["rx-usecs"] == 45

        keeping.later(10)
        keeping.keeper.look_anew()
        assert keeping.left_s == 0
        run("ethtool", "-C", wire.device, "rx-usecs", "10")  # as a driver may that has lost it while the machine slept
        (line,) = [each for each in keeping.look() if wire.device in each]
        assert line.endswith("rx-usecs 10 → 45, as the device was reset")

        assert keeping.let_go() == []
        run("ip", "link", "set", "virtio1", "down")
    assert (wire.settings(), rings_of(wire.device)) == (before, rings)
    wire.wait_for_link()
