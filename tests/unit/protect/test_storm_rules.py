"""Where a packet to a port without a listener is nobody's, and where it may be somebody's."""

from hypothesis import given
from hypothesis import strategies as st

from napctl.model.storm import PortFacts
from napctl.protect.storm_rules import (
    HARMLESS_EXPRESSIONS,
    HARMLESS_TABLES,
    HARMLESS_TARGETS,
    REWRITING,
    port_doubts,
)

NAMES = st.text(st.characters(categories=["Ll", "Lu", "Nd"]), min_size=1, max_size=12)
HARMLESS = sorted(HARMLESS_EXPRESSIONS | {f"target {name}" for name in HARMLESS_TARGETS})


@given(st.frozensets(st.sampled_from(HARMLESS)), st.frozensets(st.sampled_from(sorted(HARMLESS_TABLES))))
def test_a_firewall_that_only_drops_and_counts_leaves_no_doubt(
    expressions: frozenset[str], tables: frozenset[str]
) -> None:
    assert port_doubts(PortFacts(nft_expressions=expressions, legacy_tables=tables)) == ()


@given(st.frozensets(st.sampled_from(HARMLESS)), st.sampled_from(sorted(REWRITING)))
def test_one_expression_that_rewrites_is_enough_among_any(expressions: frozenset[str], rewriting: str) -> None:
    (doubt,) = port_doubts(PortFacts(nft_expressions=expressions | {rewriting}))
    assert REWRITING[rewriting] in doubt


@given(NAMES, st.booleans())
def test_what_is_not_known_is_doubted_by_its_name(name: str, is_target: bool) -> None:
    expression = f"target {name}" if is_target else name
    known = name in HARMLESS_TARGETS if is_target else name in HARMLESS_EXPRESSIONS | REWRITING.keys()
    found = port_doubts(PortFacts(nft_expressions=frozenset({expression})))
    assert known or any(expression in each for each in found)


@given(st.frozensets(NAMES, min_size=1, max_size=4))
def test_a_table_of_iptables_that_is_not_known_to_be_harmless_is_doubted(tables: frozenset[str]) -> None:
    found = port_doubts(PortFacts(legacy_tables=tables))
    assert bool(found) == bool(tables - HARMLESS_TABLES)


def test_each_fact_that_could_not_be_read_is_a_doubt() -> None:
    nothing = PortFacts(nft_expressions=None, legacy_tables=None, ipvs_services=None, ingress_hooks=None)
    assert len(port_doubts(nothing)) == 4
    assert all("cannot be read" in each for each in port_doubts(nothing))


def test_targets_of_iptables_nft_are_told_by_their_names() -> None:
    for target in ("DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "TPROXY", "NFQUEUE", "TEE", "CLUSTERIP"):
        (doubt,) = port_doubts(PortFacts(nft_expressions=frozenset({f"target {target}"})))
        assert target in doubt


def test_each_other_cause_is_named() -> None:
    facts = PortFacts(
        legacy_tables=frozenset({"nat", "filter"}),
        ipvs_services=2,
        translators=frozenset({"jool_siit", "jool"}),
        ingress_hooks=frozenset({"tcx"}),
        part_of="bond0",
        vrfs=("blue",),
        carries=("vlan5", "mac0"),
    )
    assert port_doubts(facts) == (
        "iptables has tables that may change where a packet goes: nat",
        "IPVS has virtual services: 2",
        "modules are loaded that translate addresses: jool, jool_siit",
        "the device's way in has tcx, which may send a packet elsewhere",
        "the device is a part of bond0, to which sockets may be bound",
        "the namespace has VRFs, whose addresses are not the device's: blue",
        "other devices stand on it: vlan5, mac0",
    )
