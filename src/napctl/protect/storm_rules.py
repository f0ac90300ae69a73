"""Whether a packet to a port of this host where nobody listens is nobody's. Pure.

It is not if something gives packets another destination on their way in, or takes them before the stack does: then a
local address may stand for a container, a virtual machine, or for all hosts behind a router. What is not known counts
as such.
"""

from collections.abc import Iterator

from napctl.model.storm import PortFacts

__all__ = ["HARMLESS_EXPRESSIONS", "HARMLESS_TABLES", "HARMLESS_TARGETS", "REWRITING", "port_doubts"]


HARMLESS_EXPRESSIONS = frozenset({
    "bitwise", "byteorder", "cmp", "connlimit", "counter", "ct", "dup", "dynset", "exthdr", "fib", "flow_offload",
    "hash", "immediate", "inner", "last", "limit", "log", "lookup", "match", "meta", "notrack", "numgen", "objref",
    "osf", "payload", "quota", "range", "reject", "rt", "secmark", "socket", "synproxy", "tunnel", "xfrm",
})  # fmt: skip
"""Expressions of nf_tables after which a packet is still for whom it was (net/netfilter/nft_*.c)."""
HARMLESS_TARGETS = frozenset({
    "ACCEPT", "AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DROP", "DSCP", "ERROR", "HL", "LOG",
    "MARK", "NFLOG", "NOTRACK", "REJECT", "SECMARK", "SET", "SYNPROXY", "TCPMSS", "TCPOPTSTRIP", "TOS", "TRACE", "TTL",
})  # fmt: skip
"""Targets of iptables of which the same is true; iptables-nft has them as expressions."""
HARMLESS_TABLES = frozenset({"filter", "raw", "security"})
"""Tables of iptables-legacy. `nat` gives packets other destinations, `mangle` may (TPROXY)."""
REWRITING = {
    "nat": "nat (DNAT or SNAT)",
    "masq": "masquerade",
    "redir": "redirect",
    "tproxy": "tproxy",
    "queue": "queue (a process decides)",
    "fwd": "fwd (to another device)",
    "payload set": "changed headers",
}
"""Expressions after which it may be somebody else's. Also what translates the sources of outgoing packets: the answers
to them come to a local port on which no process listens."""


def port_doubts(facts: PortFacts) -> tuple[str, ...]:
    """Why packets to ports where nobody listens are not to be limited, in words; nothing if they may be."""
    return (*_rules(facts), *_way_in(facts), *_around(facts))


def _rules(facts: PortFacts) -> Iterator[str]:
    if facts.nft_expressions is None:
        yield "the rules of nftables cannot be read"
    else:
        rewriting = sorted(REWRITING[each] for each in facts.nft_expressions if each in REWRITING)
        if rewriting:
            yield f"rules of nftables may change where a packet goes: {', '.join(rewriting)}"
        if unknown := sorted(each for each in facts.nft_expressions if not _is_known(each)):
            yield f"rules of nftables have what napctl does not know: {', '.join(unknown)}"
    if facts.legacy_tables is None:
        yield "the tables of iptables cannot be read"
    elif tables := sorted(facts.legacy_tables - HARMLESS_TABLES):
        yield f"iptables has tables that may change where a packet goes: {', '.join(tables)}"
    if facts.ipvs_services is None:
        yield "the services of IPVS cannot be read"
    elif facts.ipvs_services:
        yield f"IPVS has virtual services: {facts.ipvs_services}"
    if facts.translators:
        yield f"modules are loaded that translate addresses: {', '.join(sorted(facts.translators))}"


def _way_in(facts: PortFacts) -> Iterator[str]:
    if facts.ingress_hooks is None:
        yield "what stands in the device's way in (tc) cannot be read"
    elif facts.ingress_hooks:
        yield f"the device's way in has {', '.join(sorted(facts.ingress_hooks))}, which may send a packet elsewhere"


def _around(facts: PortFacts) -> Iterator[str]:
    if facts.part_of is not None:
        yield f"the device is a part of {facts.part_of}, to which sockets may be bound"
    if facts.vrfs:
        yield f"the namespace has VRFs, whose addresses are not the device's: {', '.join(facts.vrfs)}"
    if facts.carries:
        yield f"other devices stand on it: {', '.join(facts.carries)}"


def _is_known(expression: str) -> bool:
    kind, _, name = expression.partition(" ")
    if kind == "target":
        return name in HARMLESS_TARGETS
    return expression in HARMLESS_EXPRESSIONS or expression in REWRITING
