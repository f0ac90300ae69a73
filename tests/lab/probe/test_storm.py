"""Storm control's program, given single packets by the kernel: which it lets through, and what it counts."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from napctl.kernel import bpf
from napctl.lab.bed import Lab
from napctl.model.storm import PASSING, Reason, StormLimits, StormTally, limits_of
from napctl.probe.storm import StormMaps, StormProgram
from tests.lab.helpers import until
from tests.packets import BROADCAST, TCP, UDP, arp_request, ethernet, ipv4, ipv6, solicitation, tcp, udp

pytestmark = pytest.mark.lab

XDP_DROP, XDP_PASS = 1, 2
MAC = bytes.fromhex("020000000001")
OTHER_MAC = bytes.fromhex("020000000009")
MULTICAST = bytes.fromhex("01005e000001")
MULTICAST6 = bytes.fromhex("333300000001")
BRIDGES = bytes.fromhex("0180c2000000")
OURS, OURS6, OTHERS, OTHERS6 = "10.199.0.1", "fd00::1", "10.199.0.77", "fd00::77"
OPEN, CLOSED = 7_000, 7_001
ALL = limits_of(1)
BURST = ALL.burst_packets
ICMPV6, IGMP, EIGRP, VRRP, HOPOPTS = 58, 2, 88, 112, 0
ACK = 16


@dataclass
class Control:
    """The program, with sockets that listen on OPEN."""

    program: StormProgram
    maps: StormMaps

    def takes(self, packet: bytes, times: int = 1) -> bool:
        """Whether it lets the last of so many through."""
        verdict, _ = bpf.tried(self.program.fd, packet, times)
        assert verdict in (XDP_DROP, XDP_PASS)
        return verdict == XDP_PASS

    def tally(self, reason: Reason) -> StormTally:
        return self.maps.counts().by_reason[reason]

    def limited_by(self, packet: bytes) -> set[Reason]:
        """By which reason it is dropped, sent more often than the burst allows; none: it passes."""
        before = self.maps.counts().by_reason
        passes = self.takes(packet, BURST + 20)
        after = self.maps.counts().by_reason
        dropped = {reason for reason in after if after[reason].dropped_packets > before[reason].dropped_packets}
        assert bool(dropped) != passes
        counted = {reason for reason in after if after[reason] != before[reason]}
        assert counted == dropped, "what passes untouched is not counted"
        return dropped


@pytest.fixture(scope="module")
def control(shared_lab: Lab) -> Iterator[Control]:
    with ExitStack() as stack:
        stack.enter_context(shared_lab.server.namespace.entered())
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            listener = stack.enter_context(socket.socket(socket.AF_INET6, kind))
            listener.bind(("::", OPEN))
            if kind is socket.SOCK_STREAM:
                listener.listen()
        program = stack.enter_context(StormProgram.load(MAC))
        maps = stack.enter_context(StormMaps.of(program.number))
        assert maps is not None
        maps.set_addresses([OURS, OURS6])
        yield Control(program, maps)


def to_us(payload: bytes, protocol: int, *, fragment: int = 0, options: int = 0) -> bytes:
    return ethernet(MAC, 0x0800, ipv4(OURS, protocol, payload, fragment=fragment, options=options))


def to_us6(payload: bytes, protocol: int) -> bytes:
    return ethernet(MAC, 0x86DD, ipv6(OURS6, protocol, payload))


def group4(protocol: int, payload: bytes = b"") -> bytes:
    return ethernet(MULTICAST, 0x0800, ipv4("224.0.0.1", protocol, payload))


def group6(protocol: int, payload: bytes) -> bytes:
    return ethernet(MULTICAST6, 0x86DD, ipv6("ff02::1", protocol, payload))


LIMITED: dict[str, tuple[bytes, Reason]] = {
    "an ARP request for another host": (ethernet(BROADCAST, 0x0806, arp_request(OTHERS)), "broadcast"),
    "an ARP request for us": (ethernet(BROADCAST, 0x0806, arp_request(OURS)), "neighbours"),
    "an announcement of an address": (ethernet(BROADCAST, 0x0806, arp_request(OTHERS, asking=OTHERS)), "control"),
    "half an ARP request": (ethernet(BROADCAST, 0x0806, b"")[:20].ljust(20), "broadcast"),
    "a broadcast to a port": (ethernet(BROADCAST, 0x0800, ipv4("255.255.255.255", UDP, udp(OPEN))), "broadcast"),
    "a broadcast with a tag": (ethernet(BROADCAST, 0x0806, arp_request(OTHERS), tags=1), "broadcast"),
    "an ARP request for us with two tags": (ethernet(BROADCAST, 0x0806, arp_request(OURS), tags=2), "neighbours"),
    "a DHCP request": (ethernet(BROADCAST, 0x0800, ipv4("255.255.255.255", UDP, udp(67))), "DHCP"),
    "a DHCP answer": (ethernet(BROADCAST, 0x0800, ipv4("255.255.255.255", UDP, udp(68))), "DHCP"),
    "a DHCPv6 request": (group6(UDP, udp(547)), "DHCP"),
    "a later fragment that looks like DHCP": (
        ethernet(BROADCAST, 0x0800, ipv4("255.255.255.255", UDP, udp(67), fragment=100)), "broadcast"),
    "something unknown to all": (ethernet(BROADCAST, 0x9999, b"?"), "broadcast"),
    "a stream to a group": (group4(UDP, udp(5_000)), "multicast"),
    "a stream to an IPv6 group": (group6(UDP, udp(5_000)), "multicast"),
    "IGMP": (group4(IGMP, bytes(8)), "control"),
    "VRRP": (group4(VRRP, bytes(8)), "control"),
    "EIGRP": (group4(EIGRP, bytes(8)), "control"),
    "RIP": (group4(UDP, udp(520)), "control"),
    "RIPng": (group6(UDP, udp(521)), "control"),
    "LDP": (group4(UDP, udp(646)), "control"),
    "HSRP": (group4(UDP, udp(1985)), "control"),
    "HSRP for IPv6": (group6(UDP, udp(2029)), "control"),
    "MLD, behind options": (group6(HOPOPTS, bytes([ICMPV6, 0, 5, 2, 0, 0, 1, 0])), "control"),
    "a spanning tree": (ethernet(BRIDGES, 38, b"BB"), "control"),
    "LLDP": (ethernet(bytes.fromhex("0180c200000e"), 0x88CC, b""), "control"),
    "IS-IS": (ethernet(bytes.fromhex("0180c2000014"), 38, b"BB"), "control"),
    "what is behind the addresses of bridges": (ethernet(bytes.fromhex("0180c2000030"), 38, b"BB"), "multicast"),
    "a spanning tree of Cisco": (ethernet(bytes.fromhex("01000ccccccd"), 38, b"BB"), "control"),
    "what is behind the addresses of Cisco": (ethernet(bytes.fromhex("01000cccccd0"), 38, b"BB"), "multicast"),
    "a router's advertisement": (group6(ICMPV6, bytes([134]).ljust(24, b"\0")), "control"),
    "a solicitation for us": (group6(ICMPV6, solicitation(OURS6)), "neighbours"),
    "a solicitation for another host": (group6(ICMPV6, solicitation(OTHERS6)), "multicast"),
    "an echo request to all": (group6(ICMPV6, bytes([128]).ljust(24, b"\0")), "multicast"),
    "UDP to a closed port": (to_us(udp(CLOSED), UDP), "no listener"),
    "a SYN to a closed port": (to_us(tcp(CLOSED), TCP), "no listener"),
    "an ACK to a closed port": (to_us(tcp(CLOSED, flags=ACK), TCP), "no listener"),
    "UDP to a closed port, with options": (to_us(udp(CLOSED), UDP, options=3), "no listener"),
    "UDP to a closed IPv6 port": (to_us6(udp(CLOSED), UDP), "no listener"),
    "a SYN to a closed IPv6 port": (to_us6(tcp(CLOSED), TCP), "no listener"),
}  # fmt: skip
PASSED: dict[str, bytes] = {
    "UDP to an open port": to_us(udp(OPEN), UDP),
    "a SYN to an open port": to_us(tcp(OPEN), TCP),
    "UDP to an open IPv6 port": to_us6(udp(OPEN), UDP),
    "a SYN to an open IPv6 port": to_us6(tcp(OPEN), TCP),
    "a first fragment": to_us(udp(CLOSED), UDP, fragment=0x2000),
    "a later fragment": to_us(udp(CLOSED), UDP, fragment=100),
    "ICMP": to_us(bytes(8), 1),
    "SCTP": to_us(udp(CLOSED), 132),
    "DHCP": to_us(udp(68), UDP),
    "DHCPv6": to_us6(udp(546), UDP),
    "an extension header": to_us6(bytes([UDP, 0, 1, 4, 0, 0, 0, 0]) + udp(CLOSED), 60),
    "a packet for another address": ethernet(MAC, 0x0800, ipv4(OTHERS, UDP, udp(CLOSED))),
    "a packet for another IPv6 address": ethernet(MAC, 0x86DD, ipv6(OTHERS6, UDP, udp(CLOSED))),
    "a packet for another device": ethernet(OTHER_MAC, 0x0800, ipv4(OURS, UDP, udp(CLOSED))),
    "a packet with a tag": ethernet(MAC, 0x0800, ipv4(OURS, UDP, udp(CLOSED)), tags=1),
    "an ARP answer": ethernet(MAC, 0x0806, arp_request(OURS)),
    "a header that is too short": ethernet(MAC, 0x0800, bytes([0x41]) + bytes(40)),
    "half a header": ethernet(MAC, 0x0800, b"")[:20],
    "half a port": to_us(udp(CLOSED), UDP)[:36],
    "something unknown": ethernet(MAC, 0x9999, b"?"),
}


def test_a_packet_is_limited_by_its_reason_alone(control: Control) -> None:
    control.maps.set_limits(ALL)
    assert {name: control.limited_by(packet) for name, (packet, _) in LIMITED.items()} == {
        name: {reason} for name, (_, reason) in LIMITED.items()
    }


def test_what_it_cannot_judge_and_what_somebody_waits_for_passes(control: Control) -> None:
    control.maps.set_limits(ALL)
    assert {name for name, packet in PASSED.items() if control.limited_by(packet)} == set()


def test_without_limits_everything_passes_and_nothing_is_counted(control: Control) -> None:
    control.maps.set_limits(PASSING)
    assert {name for name, (packet, _) in LIMITED.items() if control.limited_by(packet)} == set()


@pytest.mark.parametrize(
    ("limits", "limited"),
    [
        (replace(ALL, multicast=False, no_listener=False), "an ARP request for another host"),
        (replace(ALL, broadcast=False, no_listener=False), "a stream to a group"),
        (replace(ALL, broadcast=False, multicast=False), "UDP to a closed port"),
    ],
)
def test_only_what_was_asked_for_is_limited(limits: StormLimits, limited: str, control: Control) -> None:
    control.maps.set_limits(limits)
    names = ("an ARP request for another host", "a stream to a group", "UDP to a closed port")

    assert {name for name in names if control.limited_by(LIMITED[name][0])} == {limited}


def test_a_storm_takes_nothing_from_what_keeps_the_host_reachable(control: Control) -> None:
    control.maps.set_limits(ALL)
    control.limited_by(LIMITED["an ARP request for another host"][0])
    time.sleep(1.1)  # one token of each

    assert not control.takes(LIMITED["an ARP request for another host"][0], 1000)
    assert control.takes(LIMITED["an ARP request for us"][0])
    assert control.takes(LIMITED["a DHCP request"][0])
    assert control.takes(LIMITED["VRRP"][0])


@contextmanager
def on_one_cpu() -> Iterator[None]:
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


@pytest.mark.parametrize("rate", [500, 20_000])
def test_the_rate_is_what_was_asked_for(rate: int, control: Control) -> None:
    limits = limits_of(rate)
    control.maps.set_limits(limits)
    packet, reason = LIMITED["an ARP request for another host"]
    control.takes(packet, 2 * limits.burst_packets)
    before, began, ran = control.tally(reason), time.monotonic(), time.thread_time()
    with on_one_cpu():  # each has a rate of its own
        control.takes(packet, 5_000_000)
    seconds, ran = time.monotonic() - began, time.thread_time() - ran
    passed = control.tally(reason).passed_packets - before.passed_packets

    assert passed <= rate * seconds + 2 * limits.burst_packets
    assert passed >= 0.5 * rate * ran, "where this thread gets no CPU for a while, all but a burst is lost"


def test_a_lower_rate_counts_at_once(control: Control) -> None:
    packet, reason = LIMITED["VRRP"]
    control.maps.set_limits(limits_of(1_000_000))
    until(lambda: control.takes(packet), "the clock's next tick, if a test before has emptied the bucket")
    control.maps.set_limits(ALL)
    assert control.limited_by(packet) == {reason}


def test_packets_and_bytes_are_counted(control: Control) -> None:
    packet, reason = LIMITED["VRRP"]
    control.maps.set_limits(limits_of(1_000_000_000))
    before = control.tally(reason)
    control.takes(packet, 1000)
    after = control.tally(reason)

    assert after.passed_packets - before.passed_packets == 1000
    assert after.passed_bytes - before.passed_bytes == 1000 * len(packet)
    assert after.dropped_packets == before.dropped_packets


def test_a_connection_is_somebody_who_listens(control: Control) -> None:
    """Also when its server does not listen any more."""
    control.maps.set_limits(ALL)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = client.getsockname()[1]
        packet = ethernet(
            MAC, 0x0800, ipv4("127.0.0.1", TCP, tcp(port, source=server.getsockname()[1], flags=ACK), came="127.0.0.1")
        )
        control.maps.set_addresses([OURS, OURS6, "127.0.0.1"])
        try:
            assert control.limited_by(packet) == set()
            assert control.limited_by(
                packet.replace(tcp(port, source=server.getsockname()[1], flags=ACK), tcp(port))
            ) == {"no listener"}
        finally:
            control.maps.set_addresses([OURS, OURS6])


def test_an_address_that_went_is_nobodys(control: Control) -> None:
    control.maps.set_limits(ALL)
    packet = LIMITED["UDP to a closed port"][0]
    control.maps.set_addresses([OURS6])
    assert control.limited_by(packet) == set()
    control.maps.set_addresses([OURS, OURS6])
    assert control.limited_by(packet) == {"no listener"}
