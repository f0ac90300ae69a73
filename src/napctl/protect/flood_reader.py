"""What floods: the CPUs that packets take from their threads, and what is offered to each protected device."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from napctl.kernel.links import Link, link
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.sleeps import Sleeps, sleeps
from napctl.model.machine import attached
from napctl.model.overload import OverloadedCpu, overloaded, overloaded_words
from napctl.observe.packet_load import PacketLoadReader
from napctl.protect.blame import CpusOfGroups, to_blame
from napctl.protect.groups import Protected
from napctl.protect.ladder import LEAST_PACKETS_PER_SECOND, Flood
from napctl.protect.nice_watch import NiceWatch
from napctl.protect.offered import Offered, OfferedRate, PacketsCounted
from napctl.protect.veth_peer import VethPeer

__all__ = ["FloodReader", "Slept", "is_emptied"]


FIND_SECONDS = 10.0
"""Between two searches for the other end of a veth."""


@dataclass(frozen=True)
class Slept:
    """Whether a thread slept between two looks."""

    at_all: bool
    """Also one that slept all the time."""
    anew: bool
    """It has run before."""


class FloodReader:
    """Of one network namespace; a window lasts from one read() to the next. A context manager, used by one thread."""

    def __init__(self, netns: NetworkNamespace, threshold: float):
        """`threshold`: as of ProtectOptions. Raises NotPermitted."""
        self._netns, self._threshold = netns, threshold
        self._load = PacketLoadReader([(netns, ())])
        self._cpus = CpusOfGroups()
        self._nice = NiceWatch(netns)
        self._devices: dict[int, Link] = {}
        self._peers: dict[int, VethPeer] = {}
        self._rates: dict[int, OfferedRate] = {}
        self._counting: set[int] = set()
        """Interface indexes of those that were seen to count what their ring drops."""
        self._sleeps: dict[int, Sleeps | None] = {}
        self._find_at = 0.0
        self.foreign: frozenset[int] = frozenset()
        """CPUs that were overloaded at the last look, and take packets of no group as far as is known."""

    def __enter__(self) -> "FloodReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is held open."""
        self._load.__exit__(None, None, None)

    def watch(self, devices: Sequence[Link]) -> None:
        """These, from now on."""
        before = self._devices
        self._devices = {each.ifindex: each for each in devices}
        self._counting &= self._devices.keys()
        self._rates = {ifindex: self._rates.get(ifindex, OfferedRate()) for ifindex in self._devices}
        veths = [each for each in devices if each.kind == "veth"]
        self._peers = {
            each.ifindex: self._peers[each.ifindex]
            if each.ifindex in self._peers and before.get(each.ifindex) and before[each.ifindex].link == each.link
            else VethPeer(self._netns, each)
            for each in veths
        }
        self._find_at = 0.0
        self._find_peers()

    def doubts(self) -> Iterator[tuple[str, str]]:
        """(device, what protection cannot do there)."""
        for ifindex, peer in self._peers.items():
            if peer.has_tso():
                name = self._devices[ifindex].name
                yield (
                    name,
                    (
                        "what its other end sends bypasses NAPI while TSO is on there "
                        "(`ethtool -K … tso off`): no step holds it back"
                    ),
                )

    def read(self, groups: Sequence[Protected], limited: Mapping[int, int]) -> list[Flood]:
        """What came since the last time, for each group. `limited`: packets that storm control has dropped by now, by
        interface index."""
        load = self._load.load()
        found = () if load is None else overloaded(load, self._threshold)
        if found or any(each.ladder.made for each in groups):
            self._find_peers()
        offered = {each: self._offered(each, limited.get(each, 0)) for each in {group.ifindex for group in groups}}
        slept = self._slept({pid for group in groups if group.ladder.made for pid in group.thread_pids})
        late = (load.late_drops_per_second or 0.0) if load is not None else 0.0
        cpus = self._cpus.read(groups)
        answered = frozenset().union(*(each for each in cpus if each is not None))
        self.foreign = frozenset() if None in cpus else frozenset(each.cpu for each in found) - answered
        floods = [
            self._flood(group, to_blame(found, its_cpus, seen.offered, seen.dropped), seen, slept, late)
            for group, its_cpus in zip(groups, cpus, strict=True)
            for seen in [offered[group.ifindex]]
        ]
        return self._nice.read(groups, floods)

    def _flood(
        self,
        group: Protected,
        worst: OverloadedCpu | None,
        offered: Offered,
        slept: Mapping[int, Slept],
        late: float,
    ) -> Flood:
        counts = group.ifindex in self._counting
        is_whole = bool(offered.dropped) or is_emptied(group, slept, offered.offered, counts_drops=counts)
        return Flood(
            offered_per_second=offered.offered,
            dropped_per_second=offered.dropped,
            is_whole=is_whole and offered.is_known,
            late_per_second=late,
            overload="" if worst is None else overloaded_words(worst),
        )

    def _offered(self, ifindex: int, limited: int) -> Offered:
        return self._rates.setdefault(ifindex, OfferedRate()).add(self._counts_of(ifindex, limited))

    def _counts_of(self, ifindex: int, limited: int) -> PacketsCounted | None:
        found = link(self._netns, ifindex)
        if found is None:
            return None
        peer = self._peers.get(ifindex)
        counted = PacketsCounted(
            monotonic=time.monotonic(),
            taken=found.rx_packets + found.rx_dropped,
            dropped=max(found.rx_missed, found.rx_overrun),
            peer_dropped=None if peer is None else peer.dropped(),
            limited=limited,
        )
        if counted.dropped or counted.peer_dropped:
            self._counting.add(ifindex)
        return counted

    def _slept(self, pids: Collection[int]) -> dict[int, Slept]:
        before, self._sleeps = self._sleeps, {pid: sleeps(pid) for pid in pids}
        return {pid: _slept_between(before[pid], now) for pid, now in self._sleeps.items() if pid in before}

    def _find_peers(self) -> None:
        missing = [each for each in self._peers.values() if not each.is_found]
        if missing and time.monotonic() >= self._find_at:
            self._find_at = time.monotonic() + FIND_SECONDS
            for each in missing:
                each.find()


def is_emptied(group: Protected, slept: Mapping[int, Slept], offered_per_second: float, *, counts_drops: bool) -> bool:
    """Whether those who empty the rings came to their end; True also where that is not known. Pure.

    A thread sleeps then. While a task polls for itself its thread sleeps in any case, and is woken when the task finds
    nothing (napi_resume_irqs() in net/core/dev.c): where nobody counts what the ring drops (`counts_drops`), one that
    was not leaves it open whether the task came so far. One of several will do, as others may have no packets at all.
    """
    told = [
        (attached(each), slept[pid]) for each in group.napis if (pid := each.thread_pid) is not None and pid in slept
    ]
    polled = [each.anew for is_attached, each in told if is_attached]
    if not all(each.at_all for _, each in told):
        return False
    return counts_drops or not polled or any(polled) or offered_per_second < LEAST_PACKETS_PER_SECOND


def _slept_between(before: Sleeps | None, now: Sleeps | None) -> Slept:
    if before is None or now is None:  # gone
        return Slept(at_all=now is None or now.now, anew=True)
    return Slept(at_all=now.now or now.times > before.times, anew=now.times > before.times)
