"""The HTTP service of plain.py with a loop that suspension does not fit, in the ways in which real ones do not."""

import argparse
import fcntl
import os
import select
import socket
import struct
from collections.abc import Collection

from tests.lab.services.plain import answer, serve

EPIOCGPARAMS = 0x80088A02
"""include/uapi/linux/eventpoll.h, Linux 6.9; struct epoll_params: usecs, budget, prefer, padding."""


def nested(listener: socket.socket) -> None:
    """Waits in an outer epoll instance, as libuv's documentation has it for uv_backend_fd(). The inner one is known by
    another number now than when it was added."""
    first, outer = select.epoll(), select.epoll()
    outer.register(first.fileno(), select.EPOLLIN)
    inner = select.epoll.fromfd(os.dup(first.fileno()))
    os.dup2(listener.fileno(), first.fileno())  # which ends no watching: the instance is open elsewhere
    serve(listener, inner, lambda: inner.poll(0) if outer.poll(5) else [])


def polled(listener: socket.socket) -> None:
    """Waits in poll(2) for the epoll instance."""
    inner, outer = select.epoll(), select.poll()
    outer.register(inner.fileno(), select.POLLIN)
    serve(listener, inner, lambda: inner.poll(0) if outer.poll(5000) else [])


def shy(listener: socket.socket) -> None:
    """Waits like any other, and asks with timeout 0 only from when its epoll instance is made to busy poll."""
    with select.epoll() as poll:

        def wait() -> Collection[tuple[int, int]]:
            params = fcntl.ioctl(poll.fileno(), EPIOCGPARAMS, bytes(8))
            return poll.poll(0 if struct.unpack("IHBx", params)[2] else 0.1)

        serve(listener, poll, wait)


def usual(listener: socket.socket) -> None:
    with select.epoll() as poll:
        serve(listener, poll, poll.poll)


def shared(listener: socket.socket, poll: select.epoll, first: int) -> None:
    """One of several processes that wait in one epoll instance, which their master made (the mistake of eventlet's pull
    request 68): each adds the connections that it accepts, under numbers from `first` on that no other has, as an event
    tells no more."""
    connections: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll(-1, 8):
            if fd in connections:
                answer(connections, fd)
            elif fd == listener.fileno():
                try:
                    accepted, _ = listener.accept()
                except BlockingIOError:
                    continue
                number = first + len(connections)
                os.dup2(accepted.fileno(), number)
                accepted.close()
                connections[number] = socket.socket(fileno=number)
                connections[number].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poll.register(number, select.EPOLLIN)


ALONE = {"nested": nested, "polled": polled, "shy": shy, "usual": usual}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("kinds", nargs="+", choices=[*sorted(ALONE), "shared"], help="a process for each")
    options = parser.parse_args()

    def listen() -> socket.socket:
        return socket.create_server((options.host, options.port), backlog=256, reuse_port=True)

    if len(options.kinds) == 1:
        ALONE[options.kinds[0]](listen())
    common = listen() if "shared" in options.kinds else None
    if common:
        common.setblocking(False)
        poll = select.epoll()
        poll.register(common, select.EPOLLIN)
    for number, kind in enumerate(options.kinds, 1):
        if os.fork() == 0:
            if common:
                shared(common, poll, 100 * number)
            ALONE[kind](listen())
    for _ in options.kinds:
        os.wait()


if __name__ == "__main__":
    main()
