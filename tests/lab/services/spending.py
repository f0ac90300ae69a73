"""An HTTP service that spends a fixed CPU time on each request: so many times that after SIGUSR1."""

import argparse
import select
import signal
import socket
import time

REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n"


class Cost:
    """What a request costs now, ns of CPU time of the thread: a pause of the thread adds nothing to it."""

    def __init__(self, usecs: int, slowdown: float):
        self._usual_ns = self.ns = usecs * 1000
        self._slowdown = slowdown

    def rise(self, *_: object) -> None:
        self.ns = round(self._usual_ns * self._slowdown)

    def fall(self, *_: object) -> None:
        self.ns = self._usual_ns

    def spend(self) -> None:
        end = time.thread_time_ns() + self.ns
        while time.thread_time_ns() < end:
            pass


def serve(listener: socket.socket, poll: select.epoll, cost: Cost) -> None:
    """Forever, one request after the other."""
    connections: dict[int, socket.socket] = {}
    poll.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
            elif not answered(connections[fd], cost):
                connections.pop(fd).close()


def answered(connection: socket.socket, cost: Cost) -> bool:
    """Whether the connection is still there. Requests come whole: each is one small segment, or several in one."""
    try:
        requests = connection.recv(65536).count(b"\r\n\r\n")
        for _ in range(requests):
            cost.spend()
            connection.sendall(REPLY)
    except ConnectionError:
        return False
    return requests > 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--usecs", type=int, default=500, help="CPU time of a request")
    parser.add_argument("--slowdown", type=float, default=1.1, help="times that CPU time, after SIGUSR1")
    options = parser.parse_args()
    cost = Cost(options.usecs, options.slowdown)
    signal.signal(signal.SIGUSR1, cost.rise)
    signal.signal(signal.SIGUSR2, cost.fall)
    with socket.create_server((options.host, options.port)) as listener, select.epoll() as poll:
        serve(listener, poll, cost)


if __name__ == "__main__":
    main()
