"""The probe of devices without NAPI instances sees whether packets are handed over one by one or together."""

import pytest

from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import Lab
from napctl.model.counts import Deliveries
from napctl.model.settings import NapiSettings
from napctl.probe import DeliveryProbe
from napctl.probe.deliveries import PAUSE_NS
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import in_namespace, set_napi, until
from tests.lab.tap import written_to
from tests.tries import in_one_of

pytestmark = pytest.mark.lab


BRIDGE_PAUSE_NS = 5_000
"""Between two packets of a batch the port's poll gathers the next one, which takes longer than a loop of tun."""


def counted(netns: NetworkNamespace, device: str, packets: int, pause_ns: int = PAUSE_NS) -> Deliveries:
    """What the probe sees until there were so many."""
    (ifindex,) = (link.ifindex for link in links(netns) if link.name == device)
    with DeliveryProbe.load(netns.inode, ifindex, pause_ns=pause_ns) as probe:
        until(lambda: probe.read().packets >= packets, f"{packets} packets")
        return probe.read()


def test_frames_that_are_written_one_by_one_are_as_many_runs() -> None:
    with written_to() as tap:
        found = counted(tap.namespace, "tap0", 2_000)

    assert found.runs > 0.98 * found.packets


@pytest.fixture
def bridged(lab: Lab) -> Lab:
    """The server's NIC is a port of a bridge, which hands on what its NAPI instance found, one packet after the other.

    The bridge has no NAPI instance, and calls netif_receive_skb() for each packet in the port's poll: packets that are
    gathered elsewhere arrive at it together (br_netif_receive_skb() in net/bridge/br_input.c).
    """
    server = lab.server
    for line in (
        "link add name br0 type bridge",
        "link set br0 address 02:00:00:00:00:01 addrgenmode none",  # that of the port, as the client knows it
        f"link set {server.device} master br0",
        f"address del {server.address}/24 dev {server.device}",
        f"address add {server.address}/24 dev br0",
        "link set br0 up",
        f"neighbour add {lab.client.address} lladdr 02:00:00:00:00:02 nud permanent dev br0",
    ):
        in_namespace(server.namespace, "ip", *line.split())
    return lab


@pytest.mark.alone
def test_packets_that_were_gathered_are_fewer_runs(bridged: Lab, load: LoadStarter) -> None:
    """Other work on the server's CPU lets packets gather that come one by one, and parts those that were gathered: so
    each is judged by that one of some windows that it disturbed least."""
    (napi,) = bridged.server.napis()
    load(5_000)

    def packets_per_run(packets: int, times: int) -> list[float]:
        windows = [counted(bridged.server.namespace, "br0", packets, BRIDGE_PAUSE_NS) for _ in range(times)]
        return [each.packets / each.runs for each in windows]

    def attempt() -> None:
        set_napi(bridged, napi.napi_id, NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0))
        at_once = packets_per_run(50, 30)  # 10 ms each, as other work comes in slices
        set_napi(bridged, napi.napi_id, NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=4_000_000))
        gathered = packets_per_run(1_000, 4)
        print(at_once, gathered)
        assert max(gathered) > 2 * min(at_once), (at_once, gathered)

    in_one_of(attempt)
