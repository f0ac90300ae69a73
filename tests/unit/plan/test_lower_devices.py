"""What is said of a device that stands on others."""

import pytest

from napctl.model.machine import Device, LowerDevice
from napctl.plan.lower_devices import look_below


def on(*lower: LowerDevice, kind: str = "bond") -> Device:
    return Device(name="up0", ifindex=9, up=True, kind=kind, lower=lower)


def nic(name: str | None, **values: object) -> LowerDevice:
    return LowerDevice(name=name, ifindex=2, **values)  # type: ignore[arg-type]


TAKEN = ", where its packets are taken and delays are set"


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (on(), ""),
        (on(nic("eth0"), nic("eth1")), f"up0 is a bond on eth0 and eth1{TAKEN}; look there: napctl plan eth0 eth1"),
        (
            on(nic("eth0", through=("bond0",)), nic("eth1", through=("bond0",)), kind="vlan"),
            f"up0 is a vlan on eth0 and eth1 (through bond0){TAKEN}; look there: napctl plan eth0 eth1",
        ),
        (
            on(nic("eth0", elsewhere=True, netns=""), kind="ipvlan"),
            f"up0 is an ipvlan on eth0 of another network namespace (ours){TAKEN}; look there: napctl plan eth0",
        ),
        (
            on(nic("eth0", elsewhere=True, netns="pid:7"), kind="macvlan"),
            (
                f"up0 is a macvlan on eth0 of another network namespace (pid:7){TAKEN}; look there: "
                "napctl plan eth0 --netns pid:7"
            ),
        ),
        (
            on(nic(None, elsewhere=True, netns=None), kind="macvlan"),
            f"up0 is a macvlan on interface 2 of a network namespace that cannot be seen from here{TAKEN}",
        ),
        (on(nic("eth0", netns=None)), f"up0 is a bond on eth0{TAKEN}"),
        (
            on(*(nic(f"e{number}") for number in range(6))),
            f"up0 is a bond on e0, e1, e2, e3 and 2 more{TAKEN}; look there: napctl plan e0 e1 e2 e3",
        ),
    ],
)
def test_the_lower_devices_are_named_with_the_command_that_looks_at_them(device: Device, words: str) -> None:
    assert look_below(device, "plan") == words


def test_a_command_for_one_device_is_offered_for_each() -> None:
    said = look_below(on(nic("eth0"), nic("eth1")), "verify", one_by_one=True)
    assert said.endswith("look there: napctl verify eth0 and napctl verify eth1")


def test_what_was_looked_at_already_is_not_offered() -> None:
    assert look_below(on(nic("eth0")), "doctor", seen=["up0", "eth0"]) == ""
    assert look_below(on(nic("eth0", elsewhere=True)), "doctor", seen=["eth0"]), "another eth0"
