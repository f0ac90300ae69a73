"""What storm_rules.py judges, as it is in one network namespace at one device."""

from collections.abc import Callable, Iterable, Mapping, Set
from typing import TypeVar

from napctl.kernel.ingress import ingress_hooks
from napctl.kernel.links import Link, addresses, links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netfilter import ipvs_services, legacy_tables, nft_expressions, nft_generation, translators
from napctl.kernel.netlink import Refused
from napctl.model.storm import PortFacts

__all__ = ["PortFactsReader", "local_to", "own_addresses"]


T = TypeVar("T")
PAIRED = frozenset({"veth", "netkit", "vxcan"})
"""Kinds whose `link` is the other end of a pair: they stand on nothing."""


class PortFactsReader:
    """Of one device. The rules of nftables, which may be many, are read again only when they have changed."""

    def __init__(self, netns: NetworkNamespace, ifindex: int):
        self._netns, self._ifindex = netns, ifindex
        self._generation: int | None = None
        self._expressions: frozenset[str] | None = None

    def read(self) -> PortFacts:
        """As it is now; what cannot be read is None. Devices that stand on it in other namespaces are not seen: as
        they have other addresses, their packets are not judged by port; docs/storm-control.md names the rest."""
        netns, ifindex = self._netns, self._ifindex
        present = {link.ifindex: link for link in links(netns)}
        device = present.get(ifindex)
        above = (link for link in present.values() if link.link == ifindex and link.link_netnsid is None)
        upper = present.get(device.master) if device is not None and device.master is not None else None
        return PortFacts(
            nft_expressions=_read(self._rules),
            legacy_tables=_read(lambda: legacy_tables(netns)),
            ipvs_services=_read(lambda: ipvs_services(netns)),
            translators=translators(),
            ingress_hooks=_read(lambda: ingress_hooks(netns, ifindex)),
            part_of=upper.name if upper is not None else None,
            vrfs=tuple(link.name for link in present.values() if link.kind == "vrf"),
            carries=tuple(link.name for link in above if link.kind not in PAIRED and link.ifindex != ifindex),
        )

    def _rules(self) -> frozenset[str]:
        generation = nft_generation(self._netns)  # first: what changes meanwhile is read once more the next time
        if generation != self._generation or self._expressions is None:
            self._expressions = nft_expressions(self._netns)
            self._generation = generation
        return self._expressions


def own_addresses(netns: NetworkNamespace) -> frozenset[str]:
    """Addresses to which packets are the host's own. Raises Refused, OSError."""
    return local_to(links(netns), addresses(netns))


def local_to(present: Iterable[Link], by_ifindex: Mapping[int, Set[str]]) -> frozenset[str]:
    """Those of devices that are up: with a device the kernel takes down its local routes, and forwards what comes."""
    return frozenset(address for link in present if link.up for address in by_ifindex.get(link.ifindex, ()))


def _read(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except (OSError, Refused):
        return None
