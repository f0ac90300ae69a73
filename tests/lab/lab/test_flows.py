"""A flow of the bed keeps its queue, as that of a NIC does, also where something of it is sent again."""

import socket
from contextlib import ExitStack

import pytest

from napctl.kernel.sockets import incoming_napi_id
from napctl.lab.bed import Lab, run_inside
from napctl.lab.servers import connected
from tests.lab.helpers import until

pytestmark = pytest.mark.lab

PORT, CONNECTIONS, AGAIN = 7001, 8, 2
LOSE = "table ip lose { chain every { type filter hook prerouting priority filter; counter drop; }; }"


def test_packets_that_are_sent_again_come_over_the_same_queue() -> None:
    with Lab.build(queues=4) as lab, ExitStack() as stack:
        with lab.server.namespace.entered():
            listener = stack.enter_context(socket.create_server((lab.server.address, PORT), backlog=CONNECTIONS))
        clients = [stack.enter_context(connected(lab, PORT)) for _ in range(CONNECTIONS)]
        servers = [stack.enter_context(listener.accept()[0]) for _ in clients]

        def queues() -> list[int | None]:
            """By which something has just come, in the order of the servers' ends."""
            assert [each.recv(1) for each in servers] == [b"x"] * CONNECTIONS
            return [incoming_napi_id(each.fileno()) for each in servers]

        for each in clients:
            each.sendall(b"x")
        first = queues()
        run_inside(lab.server.namespace, ["nft", "-f", "-"], LOSE)
        for each in clients:
            each.sendall(b"x")
        until(lambda: min(map(retransmits, clients)) >= AGAIN, "all of them to send it again")
        run_inside(lab.server.namespace, ["nft", "delete", "table", "ip", "lose"])

        assert len(set(first)) > 1
        assert queues() == first


def retransmits(connection: socket.socket) -> int:
    """Times that it has sent again what waits for its acknowledgement (struct tcp_info in include/uapi/linux/tcp.h)."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[2]
