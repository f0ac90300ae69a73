"""A lab of the two NICs of the third wire, of which one has several queues, in the place of veth."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import End, Lab
from tests.lab.helpers import in_namespace
from tests.vm.wire import run

__all__ = ["NICS", "QUEUES", "at", "lab_of_nics"]

QUEUES = 4
NICS = {"server0": "virtio2", "client0": "virtio3"}


@contextmanager
def lab_of_nics(queues: int = QUEUES) -> Iterator[Lab]:
    """They are called as in the lab, and back where they were in the end."""
    answer_over_the_queue_that_received(NICS["server0"], queues)
    with ExitStack() as undo:
        server, client = (undo.enter_context(NetworkNamespace.create()) for _ in range(2))
        lab = undo.enter_context(Lab(server, client))
        for end in (lab.server, lab.client):
            nic = NICS[end.device]
            run("ip", "link", "set", nic, "name", end.device, "netns", f"/proc/{os.getpid()}/fd/{end.namespace.fd}")
            undo.callback(at, end, f"ip link set {end.device} down name {nic} netns 1")
            at(end, "ip link set lo up")
            at(end, f"sysctl -qw net.ipv6.conf.{end.device}.disable_ipv6=1")
            at(end, f"ip address add {end.address}/24 dev {end.device}")
            at(end, f"ip link set {end.device} up")
        yield lab


def answer_over_the_queue_that_received(nic: str, queues: int) -> None:
    """Else a tap moves a connection to the queue over which it is answered (tun_flow_update() in drivers/net/tun.c)."""
    run("ethtool", "-L", nic, "combined", str(queues))
    for queue in range(queues):
        Path(f"/sys/class/net/{nic}/queues/tx-{queue}/xps_rxqs").write_text(f"{1 << queue:x}")


def at(end: End, command: str) -> str:
    return in_namespace(end.namespace, *command.split())
