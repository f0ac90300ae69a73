"""Storm control on real drivers: in those of virtio_net and igb; refused by e1000e, which has no native XDP."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.change.transaction import begun
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.xdp import xdp_device
from napctl.model.errors import Unsupported
from napctl.model.storm import limits_of
from napctl.protect.storm_control import Armed, arm
from tests.lab.helpers import Napctl, until
from tests.packets import BROADCAST, UDP, arp_request, ethernet, ipv4, udp
from tests.vm.wire import Wire, run

PACKETS = 2_000


@pytest.fixture
def journal(napctl: Napctl) -> Iterator[Journal]:
    with Journal(napctl.state) as journal:
        yield journal


@pytest.fixture
def far(wire: Wire) -> Iterator[NetworkNamespace]:
    """The namespace of virtio0."""
    with NetworkNamespace.named(wire.peer_namespace) as namespace:
        yield namespace


@contextmanager
def armed(journal: Journal, namespace: NetworkNamespace, device: str) -> Iterator[Armed]:
    with namespace.entered():
        ifindex = socket.if_nametoindex(device)
    here = arm(journal, namespace, ifindex, begun("apply", device, ()))
    yield here
    (transaction,) = journal.live()
    here.control.disarm(journal, transaction)
    found = xdp_device(namespace, ifindex)
    assert found is not None
    assert found.programs == ()


@dataclass(frozen=True)
class Place:
    """Where a storm comes from, or goes to."""

    namespace: NetworkNamespace
    device: str
    address: str


def outlives_a_storm(journal: Journal, here: Armed, storms: Place, target: Place) -> None:
    """Of what comes to the target little is let through, and who comes with it is answered."""
    found = xdp_device(target.namespace, here.control.change.ifindex)
    assert found is not None
    assert found.native
    limits = limits_of(10)
    limited = here.control.limit(journal, here.transaction, limits)
    assert limited.words == ()
    with storms.namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        run("ip", "neighbour", "flush", "dev", storms.device)
        sender.bind((storms.device, 0))
        began = time.monotonic()
        for _ in range(PACKETS):
            sender.send(ethernet(BROADCAST, 0x0806, arp_request("10.0.0.77", asking=storms.address)))
            sender.send(ethernet(found.mac, 0x0800, ipv4(target.address, UDP, udp(7_001), came=storms.address)))
        run("ping", "-q", "-c", "3", "-i", "0.2", "-W", "10", "-I", storms.device, target.address)
        seconds = time.monotonic() - began

    counts = here.control.counts().by_reason
    for reason in ("broadcast", "no listener"):
        tally = counts[reason]
        assert tally.passed_packets + tally.dropped_packets >= PACKETS * 0.9, counts
        assert tally.passed_packets <= 2 * (limits.burst_packets + limits.packets_per_second * (seconds + 1))


@pytest.mark.long
def test_virtio_net_drops_a_storm_in_its_driver_and_answers_beside_it(
    wire: Wire, far: NetworkNamespace, journal: Journal
) -> None:
    with armed(journal, far, wire.peer) as here, NetworkNamespace.current() as near:
        storms, target = Place(near, wire.device, wire.address), Place(far, wire.peer, wire.peer_address)
        outlives_a_storm(journal, here, storms, target)


@pytest.fixture
def igb() -> Iterator[Wire]:
    """Which has one queue for each CPU; its far end is a virtio_net."""
    if not Path("/sys/class/net/igb0").exists():
        pytest.skip("QEMU has an igb since 8.0")
    wire = Wire(
        device="igb0",
        driver="igb",
        address="10.0.2.1",
        peer="virtio4",
        peer_address="10.0.2.2",
        peer_namespace="peer-of-igb",
    )
    with wire.laid():
        yield wire


@pytest.mark.long
def test_igb_drops_a_storm_in_its_driver_and_what_was_set_is_set_again_after_its_reset(
    igb: Wire, napctl: Napctl, journal: Journal, tmp_path: Path
) -> None:
    """Its driver takes itself down and up for a native program."""
    with NetworkNamespace.current() as near, NetworkNamespace.named(igb.peer_namespace) as far:
        with armed(journal, near, igb.device) as here:
            print("\n".join(here.words))
            igb.wait_for_link()
            storms, target = Place(far, igb.peer, igb.peer_address), Place(near, igb.device, igb.address)
            outlives_a_storm(journal, here, storms, target)
        igb.wait_for_link()


@pytest.mark.long
def test_what_was_set_on_virtio_net_outlives_it(wire: Wire, far: NetworkNamespace, journal: Journal) -> None:
    """Its driver stops its queues for a native program, and has the same NAPI instances after it."""
    with armed(journal, far, wire.peer) as here:
        assert here.words == ()
        wire.ping(5)
    wire.ping(5)


def test_e1000e_has_no_native_mode_and_says_so(wire: Wire, journal: Journal) -> None:
    with (
        NetworkNamespace.current() as near,
        pytest.raises(Unsupported, match=f"^storm control of {wire.device}: ") as said,
    ):
        arm(journal, near, socket.if_nametoindex(wire.device), begun("apply", wire.device, ()))
    assert said.value.exit_status == 3
    assert "native" in str(said.value)
    assert journal.live() == []


@pytest.mark.long
def test_generic_mode_does_for_e1000e(wire: Wire, journal: Journal) -> None:
    with NetworkNamespace.current() as near:
        ifindex = socket.if_nametoindex(wire.device)
        here = arm(journal, near, ifindex, begun("apply", wire.device, ()), generic=True)
        limited = here.control.limit(journal, here.transaction, limits_of(10))
        with (
            NetworkNamespace.named(wire.peer_namespace).entered(),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
        ):
            sender.bind((wire.peer, 0))
            for _ in range(PACKETS):
                sender.send(ethernet(BROADCAST, 0x0806, arp_request("10.0.0.77", asking=wire.peer_address)))
        until(lambda: here.control.counts().by_reason["broadcast"].dropped_packets > PACKETS / 2, "drops")
        here.control.disarm(journal, limited.transaction)
