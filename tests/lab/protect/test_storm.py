"""Storms of real packets: what the host needs still comes through, what nobody wants is dropped, both are counted."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import End, Lab
from napctl.model.storm import Reason, StormTally, limits_of
from napctl.protect.storm_control import StormControl
from tests.lab.helpers import until
from tests.lab.protect.conftest import armed, frames, inside, send
from tests.packets import BROADCAST, TCP, UDP, arp_request, ethernet, ipv4, tcp, udp

pytestmark = pytest.mark.lab

MAC = bytes.fromhex("020000000001")
CLOSED = 7_001
TRIES = 30
LEASED = "10.199.0.50"
BUSYBOX = "busybox"
STORMING = """
import socket, sys, time
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, int(sys.argv[3]))
sender.bind((sys.argv[1], 0))
frame = bytes.fromhex(sys.argv[2])
print(flush=True)
while True:
    for _ in range(100):
        sender.send(frame)
    time.sleep(0.001)
"""
HALF_A_RING = 50_000
"""Bytes of SO_SNDBUF, which the kernel doubles: about 110 small frames, each of some 900 with what the kernel keeps of
it, until they are polled. The receiver's ring has 256 places (VETH_RING_SIZE)."""


@contextmanager
def storm(end: End, frame: bytes) -> Iterator[None]:
    """Some ten thousand of these a second, or as many as are polled: the receiver's ring always has room for what is
    wanted, whoever else has its CPU."""
    command = [sys.executable, "-c", STORMING, end.device, frame.hex(), str(HALF_A_RING)]
    process = end.start(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


def is_asked_for(end: End, address: str) -> bool:
    """Whether somebody answers an ARP request within a second."""
    with frames(end) as sender:
        send(sender, ethernet(BROADCAST, 0x0806, arp_request(address)), 1)
        deadline = time.monotonic() + 1
        while (left := deadline - time.monotonic()) > 0:
            sender.settimeout(left)
            try:
                answer = sender.recv(100)
            except TimeoutError:
                return False
            if answer[12:14] == b"\x08\x06" and answer[20:22] == b"\0\2" and answer[28:32] == socket.inet_aton(address):
                return True
    return False


@contextmanager
def dhcp_server(end: End, directory: Path) -> Iterator[None]:
    """busybox's udhcpd, with one address to give away."""
    leases, settings = directory / "leases", directory / "udhcpd.conf"
    leases.touch()
    settings.write_text(
        f"start {LEASED}\nend {LEASED}\nmax_leases 1\ninterface {end.device}\nlease_file {leases}\n"
        f"pidfile {directory / 'pid'}\nopt subnet 255.255.255.0\nopt lease 600\n"
    )
    process = end.start([BUSYBOX, "udhcpd", "-f", str(settings)])
    try:
        until(lambda: ":67 " in inside(end, "ss", "-Huln"), "udhcpd to listen")
        yield
    finally:
        process.kill()
        process.wait()


def leased(end: End, directory: Path) -> str:
    """The address that busybox's udhcpc is given, which asks TRIES times, a second apart; nothing is made of it."""
    script = directory / "told"
    script.write_text('#!/bin/sh\n[ "$1" != bound ] || echo "$ip from $serverid"\n')
    script.chmod(0o755)
    asks = ("-f", "-q", "-n", "-t", str(TRIES), "-T", "1", "-i", end.device, "-s", str(script))
    return inside(end, BUSYBOX, "udhcpc", *asks)


def growth(control: StormControl, reason: Reason, before: StormTally) -> tuple[int, int]:
    """(passed, dropped) packets since."""
    now = control.counts().by_reason[reason]
    return now.passed_packets - before.passed_packets, now.dropped_packets - before.dropped_packets


def test_arp_and_dhcp_are_answered_in_a_storm_of_broadcasts(journal: Journal, lab: Lab, tmp_path: Path) -> None:
    here, limits = armed(journal, lab), limits_of(20)
    here.control.limit(journal, here.transaction, limits)
    loop = ethernet(BROADCAST, 0x0806, arp_request("10.199.0.77"))
    with dhcp_server(lab.server, tmp_path), storm(lab.client, loop):
        began, before = time.monotonic(), here.control.counts().by_reason["broadcast"]
        for _ in range(5):
            # In the ring a packet may be lost all the same; then it is tried again, as all clients do.
            assert any(is_asked_for(lab.client, lab.server.address) for _ in range(TRIES))
            assert f"{LEASED} from {lab.server.address}" in leased(lab.client, tmp_path)
        until(lambda: growth(here.control, "broadcast", before)[1] > 1000, "drops")
        passed, _ = growth(here.control, "broadcast", before)
        seconds = time.monotonic() - began

    assert passed <= limits.burst_packets + limits.packets_per_second * (seconds + 1)


def test_a_storm_of_requests_for_this_host_is_limited_as_well(journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab)
    here.control.limit(journal, here.transaction, limits_of(100))
    with storm(lab.client, ethernet(BROADCAST, 0x0806, arp_request(lab.server.address))):
        until(lambda: here.control.counts().by_reason["neighbours"].dropped_packets > 1000, "drops")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_what_nobody_listens_to_is_dropped_and_who_listens_is_reached(
    protocol: str, journal: Journal, lab: Lab
) -> None:
    here = armed(journal, lab)
    limits = limits_of(1)
    here.control.limit(journal, here.transaction, limits)
    payload = (TCP, tcp(CLOSED)) if protocol == "tcp" else (UDP, udp(CLOSED))
    began, before = time.monotonic(), here.control.counts().by_reason["no listener"]
    with frames(lab.client) as sender:
        send(sender, ethernet(MAC, 0x0800, ipv4(lab.server.address, *payload)), 1000)
        until(lambda: sum(growth(here.control, "no listener", before)) == 1000, "all of them")
    passed, _ = growth(here.control, "no listener", before)
    assert passed <= limits.burst_packets + 5 + time.monotonic() - began

    with lab.server.namespace.entered():
        server = socket.create_server(("", 7_002))
    with server, lab.client.namespace.entered():
        for _ in range(50):
            with socket.create_connection((lab.server.address, 7_002), timeout=30) as client:
                client.send(b"x")
        assert sum(growth(here.control, "no listener", before)) == 1000, "packets to who listens are not even counted"


def test_its_own_connections_are_not_disturbed(journal: Journal, lab: Lab) -> None:
    """A client on this host has a port on which nobody listens."""
    here = armed(journal, lab)
    here.control.limit(journal, here.transaction, limits_of(1))
    with lab.client.namespace.entered():
        server = socket.create_server(("", 7_003))
    with server:
        for _ in range(50):
            with lab.server.namespace.entered():
                client = socket.create_connection((lab.client.address, 7_003), timeout=30)
            with client:
                accepted, _ = server.accept()
                accepted.send(b"x")
                assert client.recv(1) == b"x"
                accepted.close()
    with lab.server.namespace.entered():
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with lab.client.namespace.entered():
        answering = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asking, answering:
        answering.bind(("", 7_004))
        asking.settimeout(30)
        for _ in range(50):
            asking.sendto(b"x", (lab.client.address, 7_004))
            data, address = answering.recvfrom(10)
            answering.sendto(data, address)
            assert asking.recv(10) == b"x"


def test_a_new_address_is_taken_over(journal: Journal, lab: Lab) -> None:
    here = armed(journal, lab)
    limited = here.control.limit(journal, here.transaction, limits_of(1))
    new, known = (
        ethernet(MAC, 0x0800, ipv4(address, UDP, udp(CLOSED))) for address in ("10.199.0.99", lab.server.address)
    )
    with frames(lab.client) as sender:

        def counted(expected: int) -> int:
            """Of those that are sent to the new address; one to a known one comes after them all."""
            before = here.control.counts().by_reason["no listener"]
            send(sender, new, 200)
            send(sender, known, 1)
            until(lambda: sum(growth(here.control, "no listener", before)) > expected, "the last one")
            return sum(growth(here.control, "no listener", before)) - 1

        assert counted(0) == 0
        inside(lab.server, "ip", "address", "add", "10.199.0.99/24", "dev", lab.server.device)
        here.control.refresh(journal, limited.transaction)
        assert counted(200) == 200


@contextmanager
def container(lab: Lab) -> Iterator[NetworkNamespace]:
    """A network namespace behind the server's, at 172.31.0.2."""
    with NetworkNamespace.create() as within:
        with lab.server.namespace.entered():
            link = [
                "ip",
                "link",
                "add",
                "br9",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                f"/proc/self/fd/{within.fd}",
            ]
            subprocess.run(link, check=True, pass_fds=[within.fd])
        inside(lab.server, "ip", "address", "add", "172.31.0.1/24", "dev", "br9")
        inside(lab.server, "ip", "link", "set", "br9", "up")
        inside(lab.server, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        with within.entered():
            for line in ("address add 172.31.0.2/24 dev eth0", "link set eth0 up", "route add default via 172.31.0.1"):
                subprocess.run(["ip", *line.split()], check=True)
        yield within


def test_with_a_published_port_of_a_container_ports_are_not_judged(journal: Journal, lab: Lab) -> None:
    """Nobody listens on it here: nftables sends it into another namespace."""
    rules = (
        "table ip n { chain c { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 172.31.0.2:80; }; }"
    )
    with container(lab) as within:
        with lab.server.namespace.entered():
            subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        with within.entered():
            published = socket.create_server(("", 80))
        here = armed(journal, lab)
        limited = here.control.limit(journal, here.transaction, limits_of(1))

        assert (limited.limits.broadcast, limited.limits.no_listener) == (True, False)
        (words,) = limited.words
        assert words.startswith("packets to ports where nobody listens are not limited: ")
        assert "nat (DNAT or SNAT)" in words
        with published, lab.client.namespace.entered():
            for _ in range(50):
                socket.create_connection((lab.server.address, 8080), timeout=30).close()
