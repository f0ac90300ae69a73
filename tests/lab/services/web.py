"""An HTTP service on asyncio, or on uvloop: every GET gets the same reply."""

import argparse
import asyncio
from typing import cast

import uvloop

from tests.lab.services.forking import run

REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n"


class Hello(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no instance of it
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        *requests, self.rest = (self.rest + data).split(b"\r\n\r\n")
        self.transport.write(REPLY * len(requests))


async def listen(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Hello, host, port, reuse_port=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()

    def service() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if options.uvloop else None) as runner:
            runner.run(listen(options.host, options.port))

    run(service, options.workers)


if __name__ == "__main__":
    main()
