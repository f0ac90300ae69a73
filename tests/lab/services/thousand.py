"""So many processes of one name, each with an epoll instance and one UDP socket: thousand.py COUNT ADDRESS PEER PORT.

Each takes its datagrams from that one peer. They end with this one.
"""

import ctypes
import os
import select
import signal
import socket
import struct
import sys

PR_SET_NAME, PR_SET_PDEATHSIG = 15, 1
prctl = ctypes.CDLL(None).prctl


def serve(address: str, peer: tuple[str, int], ready: int) -> None:
    """One of them."""
    with socket.socket(type=socket.SOCK_DGRAM) as own, select.epoll() as waiting:
        own.bind((address, 0))
        own.connect(peer)
        waiting.register(own, select.EPOLLIN)
        os.write(ready, struct.pack("=I", own.getsockname()[1]))
        while True:
            waiting.poll()
            own.recv(100)


def main() -> None:
    """Print the ports when all of them wait, and wait for the end of the input."""
    count, address, peer, port = sys.argv[1:]
    prctl(PR_SET_NAME, b"thousand", 0, 0, 0)
    read, write = os.pipe()
    for _ in range(int(count)):
        if os.fork() == 0:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            serve(address, (peer, int(port)), write)
    print(*(struct.unpack("=I", os.read(read, 4))[0] for _ in range(int(count))), flush=True)
    sys.stdin.read()


main()
