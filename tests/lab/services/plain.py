"""An HTTP service on epoll itself: every GET gets the same reply. It waits, spins, or asks for suspension by itself."""

import argparse
import fcntl
import select
import socket
import struct
from collections.abc import Callable, Collection

REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n"
EPIOCSPARAMS = 0x40088A01
"""include/uapi/linux/eventpoll.h, Linux 6.9; struct epoll_params: usecs, budget, prefer, padding."""


def serve(listener: socket.socket, poll: select.epoll, wait: Callable[[], Collection[tuple[int, int]]]) -> None:
    """Forever. `wait` returns events of `poll`."""
    connections: dict[int, socket.socket] = {}
    poll.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in wait():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
            else:
                answer(connections, fd)


def answer(connections: dict[int, socket.socket], fd: int) -> None:
    """Requests come whole: each is one small segment, or several in one. A reply may block: the client always reads."""
    try:
        requests = connections[fd].recv(65536).count(b"\r\n\r\n")
        if requests:
            connections[fd].sendall(REPLY * requests)
            return
    except ConnectionError:
        pass
    connections.pop(fd).close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--spin", action="store_true", help="only ever ask with timeout 0")
    parser.add_argument("--suspend", action="store_true", help="call EPIOCSPARAMS, as `napctl attach` would")
    options = parser.parse_args()
    with socket.create_server((options.host, options.port), backlog=256) as listener, select.epoll() as poll:
        if options.suspend:
            fcntl.ioctl(poll, EPIOCSPARAMS, struct.pack("IHBB", 0, 64, 1, 0))
        serve(listener, poll, lambda: poll.poll(0 if options.spin else -1))  # 0: it never waits


if __name__ == "__main__":
    main()
