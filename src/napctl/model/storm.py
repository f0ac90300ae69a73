"""Storm control: what it limits, what it has counted, and what of a machine decides whether ports may be judged."""

from typing import Literal

from napctl.model.limits import HIGHEST_RATE
from napctl.model.value import Value

__all__ = ["BY_REASON", "PASSING", "PortFacts", "Reason", "StormCounts", "StormLimits", "StormTally", "limits_of"]


Reason = Literal["broadcast", "multicast", "no listener", "neighbours", "DHCP", "control"]
"""Why a packet is limited. "neighbours": ARP requests and neighbour solicitations for this host's own addresses;
"control": what switches and routers tell each other. Both, and DHCP, are part of broadcast and multicast, and have
rates of their own, so that a storm leaves the host reachable."""
BY_REASON: tuple[Reason, ...] = ("broadcast", "multicast", "no listener", "neighbours", "DHCP", "control")
"""In the order of enum reason in probe/storm.bpf.c."""


class StormLimits(Value, frozen=True, kw_only=True):
    """What of a device's packets is let through up to a rate only. Without any of the three everything passes."""

    broadcast: bool = False
    multicast: bool = False
    no_listener: bool = False
    """Packets to ports of this host where nobody listens."""
    packets_per_second: int = 0
    """Of each reason, on each CPU."""
    burst_packets: int = 0
    """So many more after a pause."""

    @property
    def passing(self) -> bool:
        """Whether everything passes."""
        return not (self.broadcast or self.multicast or self.no_listener)


PASSING = StormLimits()
LEAST_BURST = 32
BURST_PART = 20
"""A twentieth of a second: longer than the tick by which the program's clock goes on (10 ms at the longest)."""


def limits_of(
    packets_per_second: int, *, broadcast: bool = True, multicast: bool = True, no_listener: bool = True
) -> StormLimits:
    """With the burst that fits the rate. Raises ValueError for a rate that cannot be kept."""
    if not 1 <= packets_per_second <= HIGHEST_RATE:
        raise ValueError(f"packets per second must be 1 to {HIGHEST_RATE}, not {packets_per_second}")
    return StormLimits(
        broadcast=broadcast,
        multicast=multicast,
        no_listener=no_listener,
        packets_per_second=packets_per_second,
        burst_packets=max(packets_per_second // BURST_PART, LEAST_BURST),
    )


class StormTally(Value, frozen=True, kw_only=True):
    """Packets of one reason since the program was attached, on all CPUs; those that came while it was limited."""

    passed_packets: int = 0
    passed_bytes: int = 0
    dropped_packets: int = 0
    dropped_bytes: int = 0


class StormCounts(Value, frozen=True, kw_only=True):
    """Of one device, by reason."""

    by_reason: dict[Reason, StormTally]

    @property
    def dropped_packets(self) -> int:
        """Of all reasons."""
        return sum(each.dropped_packets for each in self.by_reason.values())


class PortFacts(Value, frozen=True, kw_only=True):
    """What may make a packet to a local address somebody else's. None: could not be read."""

    nft_expressions: frozenset[str] | None = frozenset()
    """As kernel/netfilter.py names them."""
    legacy_tables: frozenset[str] | None = frozenset()
    """Of iptables-legacy."""
    ipvs_services: int | None = 0
    translators: frozenset[str] = frozenset()
    """"jool", "jool_siit": modules that translate addresses on their own."""
    ingress_hooks: frozenset[str] | None = frozenset()
    """"ingress", "clsact", "tcx"."""
    part_of: str | None = None
    """The bond, bridge, team or VRF whose port the device is."""
    vrfs: tuple[str, ...] = ()
    """Of its namespace: each has addresses that are not local to the others."""
    carries: tuple[str, ...] = ()
    """Devices that stand on it: VLAN, macvlan, ipvlan."""
