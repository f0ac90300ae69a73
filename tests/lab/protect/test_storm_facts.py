"""What stands between a device and the sockets of a host, as the kernel tells it."""

import subprocess
from functools import partial

import pytest

from napctl.kernel.ingress import ingress_hooks
from napctl.kernel.netfilter import ipvs_services, legacy_tables, nft_expressions, nft_generation
from napctl.lab.bed import Lab
from napctl.model.storm import PortFacts
from napctl.protect.storm_facts import PortFactsReader
from napctl.protect.storm_rules import port_doubts
from tests.lab.protect.conftest import ifindex_of, inside

pytestmark = pytest.mark.lab

TABLE = "table ip n {{ chain c {{ type {kind} hook prerouting priority {priority}; {rule}; }}; }}"


def load(lab: Lab, kind: str, priority: str, rule: str, chain: str = TABLE) -> None:
    with lab.server.namespace.entered():
        text = chain.format(kind=kind, priority=priority, rule=rule)
        done = subprocess.run(["nft", "-f", "-"], input=text, text=True, check=False, capture_output=True)
    if done.returncode and ("No such file or directory" in done.stderr or "not supported" in done.stderr):
        pytest.skip(f"this kernel has no such expression: {rule}")
    assert done.returncode == 0, done.stderr


def doubts(lab: Lab) -> tuple[str, ...]:
    return port_doubts(PortFactsReader(lab.server.namespace, ifindex_of(lab.server)).read())


def test_a_plain_namespace_raises_no_doubts(lab: Lab) -> None:
    assert PortFactsReader(lab.server.namespace, ifindex_of(lab.server)).read() == PortFacts()
    assert doubts(lab) == ()


def test_a_firewall_raises_none(lab: Lab) -> None:
    load(lab, "filter", "filter", "tcp dport { 22, 80 } ct state new limit rate 10/second counter log drop")
    assert doubts(lab) == ()


@pytest.mark.parametrize(
    ("kind", "priority", "rule", "word"),
    [
        ("nat", "dstnat", "tcp dport 80 dnat to 10.0.0.1", "nat (DNAT or SNAT)"),
        ("nat", "dstnat", "tcp dport 80 redirect to :8080", "redirect"),
        ("filter", "mangle", "tcp dport 80 tproxy to 127.0.0.1:8080", "tproxy"),
        ("filter", "filter", "udp dport 53 queue num 1", "queue"),
        ("filter", "raw", "ip daddr set 10.0.0.1", "changed headers"),
    ],
)
def test_a_rule_that_may_send_packets_elsewhere_is_named(
    kind: str, priority: str, rule: str, word: str, lab: Lab
) -> None:
    load(lab, kind, priority, rule)
    (found,) = doubts(lab)
    assert word in found


def test_masquerade_is_one_of_them(lab: Lab) -> None:
    """The answers to what was masqueraded come to a local port that no socket has."""
    load(lab, "nat", "srcnat", "masquerade", TABLE.replace("prerouting", "postrouting"))
    (found,) = doubts(lab)
    assert "masquerade" in found


def test_rules_are_read_again_when_they_have_changed(lab: Lab) -> None:
    reader = PortFactsReader(lab.server.namespace, ifindex_of(lab.server))
    assert port_doubts(reader.read()) == ()
    before = nft_generation(lab.server.namespace)
    load(lab, "nat", "dstnat", "tcp dport 80 redirect to :8080")
    assert nft_generation(lab.server.namespace) != before
    assert port_doubts(reader.read())
    inside(lab.server, "nft", "flush", "ruleset")
    assert port_doubts(reader.read()) == ()


def test_many_rules_are_read_to_the_last(lab: Lab) -> None:
    rules = "; ".join(
        [*(f"ip saddr 198.18.{number // 250}.{number % 250} drop" for number in range(2000)), "tcp dport 1 counter"]
    )
    load(lab, "filter", "filter", rules)
    found = nft_expressions(lab.server.namespace)
    assert {"payload", "cmp", "immediate", "counter"} <= found
    assert doubts(lab) == ()


def test_tc_in_the_way_in_is_one_of_them(lab: Lab) -> None:
    inside(lab.server, "tc", "qdisc", "add", "dev", lab.server.device, "clsact")
    assert ingress_hooks(lab.server.namespace, ifindex_of(lab.server)) == {"clsact"}
    assert "clsact" in doubts(lab)[0]


def stands_on(lab: Lab, kind: tuple[str, ...]) -> bool:
    """Whether a device of that kind could be made on the server's."""
    command = ["ip", "link", "add", "link", lab.server.device, "name", "upper9", "type", *kind]
    with lab.server.namespace.entered():
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_what_it_is_part_of_and_what_stands_on_it_is_named(lab: Lab) -> None:
    kinds = (("vlan", "id", "5"), ("macvlan",), ("ipvlan",))
    if any(map(partial(stands_on, lab), kinds)):  # not every kernel has one of these
        assert doubts(lab) == ("other devices stand on it: upper9",)
        inside(lab.server, "ip", "link", "delete", "upper9")
    inside(lab.server, "ip", "link", "add", "br9", "type", "bridge")
    inside(lab.server, "ip", "link", "set", lab.server.device, "master", "br9")
    assert doubts(lab) == ("the device is a part of br9, to which sockets may be bound",)


def test_what_is_not_there_is_nothing(lab: Lab) -> None:
    assert legacy_tables(lab.server.namespace) <= {"filter", "nat", "mangle", "raw", "security"}
    assert ipvs_services(lab.server.namespace) == 0
