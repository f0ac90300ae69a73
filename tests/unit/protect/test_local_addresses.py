"""Which addresses are the host's own."""

from dataclasses import replace

from napctl.protect.storm_facts import local_to
from tests.unit.protect.test_groups import link


def test_addresses_of_a_device_that_is_down_are_not_local() -> None:
    there = [link("eth0"), replace(link("eth1", up=False), ifindex=3), replace(link("eth2"), ifindex=4)]
    told = {2: frozenset({"10.0.0.1", "fe80::1"}), 3: frozenset({"10.0.0.2"}), 9: frozenset({"10.0.0.9"})}
    assert local_to(there, told) == {"10.0.0.1", "fe80::1"}
