"""A small HTTP server with IRQ suspension: python asyncio_server.py [--uvloop] [--port PORT]."""

import argparse
import asyncio
import signal
from typing import Any

from napctl.suspension import Active, suspended

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"


class Http(asyncio.Protocol):
    """One connection, whose requests are all answered alike."""

    told = False

    def __init__(self, active: Active) -> None:
        self.active, self.rest = active, b""

    def connection_made(self, transport: Any) -> None:
        """Keep the way back."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        *requests, self.rest = (self.rest + data).split(b"\r\n\r\n")
        self.transport.write(ANSWER * len(requests))
        if not Http.told:  # a packet has come, so the kernel knows by which NIC queue
            Http.told = True
            print(self.active.status(), flush=True)  # noqa: T201


async def main(port: int) -> None:
    """Serve until SIGTERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    with suspended(loop) as active:
        async with await loop.create_server(lambda: Http(active), port=port):
            await stop.wait()


parser = argparse.ArgumentParser()
parser.add_argument("--uvloop", action="store_true")
parser.add_argument("--port", type=int, default=8080)
options = parser.parse_args()
factory = __import__("uvloop").new_event_loop if options.uvloop else None
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main(options.port))
