"""A UDP echo service that waits for datagrams in one of three ways."""

import argparse
import asyncio
import select
import socket
from typing import Any, cast

from tests.lab.services.forking import run


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)  # not every loop's is an instance of it

    def datagram_received(self, data: bytes, address: tuple[str | Any, int]) -> None:
        self.transport.sendto(data, address)


async def on_asyncio(here: socket.socket) -> None:
    """One epoll instance."""
    here.setblocking(False)
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=here)
    await asyncio.Event().wait()


def in_recv(here: socket.socket) -> None:
    """Blocks in the system call recvfrom."""
    while True:
        here.sendto(*here.recvfrom(2048))


def in_poll(here: socket.socket) -> None:
    """Blocks in the system call poll."""
    here.setblocking(False)
    poll = select.poll()
    poll.register(here, select.POLLIN)
    while True:
        poll.poll()
        here.sendto(*here.recvfrom(2048))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--wait-in", choices=["epoll", "recv", "poll"], default="epoll")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()

    def service() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            here.bind((options.host, options.port))
            if options.wait_in == "epoll":
                asyncio.run(on_asyncio(here))
            elif options.wait_in == "recv":
                in_recv(here)
            else:
                in_poll(here)

    run(service, options.workers)


if __name__ == "__main__":
    main()
