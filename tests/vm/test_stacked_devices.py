"""Devices on devices on real drivers: a VLAN on a bond of two NICs."""

from collections.abc import Iterator

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.observe.machine import take_machine
from tests.lab.helpers import Napctl
from tests.vm.wire import run

PORTS = ("e1000e1", "virtio1")


@pytest.fixture
def vlan() -> Iterator[str]:
    """bond0.7, on bond0, on the two NICs of the second wire."""
    run("ip", "link", "add", "bond0", "type", "bond", "mode", "active-backup")
    try:
        for port in PORTS:
            run("ip", "link", "set", port, "master", "bond0")
        run("ip", "link", "add", "link", "bond0", "name", "bond0.7", "type", "vlan", "id", "7")
        run("ip", "link", "set", "bond0", "up")
        run("ip", "link", "set", "bond0.7", "up")
        yield "bond0.7"
    finally:
        run("ip", "link", "delete", "bond0")


def test_a_vlan_on_a_bond_leads_to_the_nics(vlan: str, napctl: Napctl) -> None:
    with NetworkNamespace.current() as here:
        (device,) = take_machine(here, [vlan]).devices

    assert (device.kind, device.bus) == ("vlan", None)
    assert sorted(each.name or "" for each in device.lower) == sorted(PORTS)
    assert {each.through for each in device.lower} == {("bond0",)}
    said = " ".join(napctl("plan", vlan, "--window", 0, timeout_s=120).stdout.split())
    assert "bond0.7 is a vlan on e1000e1 and virtio1 (through bond0)" in said
    assert "look there: napctl plan e1000e1 virtio1" in said
    (bond,) = napctl("status", "bond0", "--json", timeout_s=120).json["devices"]
    assert sorted(each["name"] for each in bond["lower"]) == sorted(PORTS)
