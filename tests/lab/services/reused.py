"""One pid, two programs in turns: `target` and `bystander`, each with an epoll instance that one UDP socket feeds.

reused.py ADDRESS PORT PEER PEER_PORT PID, as the first process of a PID namespace, until its input ends: prints, after
each turn, how often each has had that pid, and how many of each have found the parameters of their instance changed.
"""

import ctypes
import fcntl
import os
import random
import select
import socket
import sys
import time
from collections import Counter
from pathlib import Path

EPIOCGPARAMS, PR_SET_NAME = 0x80088A02, 15
UNSET = bytes(8)
NAMES = ("target", "bystander")
prctl = ctypes.CDLL(None).prctl


def live(name: str, here: tuple[str, int], peer: tuple[str, int]) -> bool:
    """For a while; whether the parameters of its epoll instance were changed."""
    prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
    with socket.socket(type=socket.SOCK_DGRAM) as own, select.epoll() as waiting:
        own.bind(here)
        own.connect(peer)
        waiting.register(own, select.EPOLLIN)
        end = time.monotonic() + (random.uniform(0.3, 1.5) if name == "target" else 0.1)
        changed = False
        while time.monotonic() < end:
            if waiting.poll(0.01):
                own.recv(100)
            changed = changed or fcntl.ioctl(waiting, EPIOCGPARAMS, UNSET) != UNSET
        return changed


def main() -> None:
    """The two take turns."""
    address, port, peer, peer_port, pid = sys.argv[1:]
    lived, changed = Counter[str](), Counter[str]()
    while not select.select([sys.stdin], [], [], 0)[0]:
        for name in NAMES:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(int(pid) - 1))
            child = os.fork()
            if child == 0:
                os._exit(live(name, (address, int(port)), (peer, int(peer_port))) if os.getpid() == int(pid) else 0)
            lived[name] += child == int(pid)
            changed[name] += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(*(f"{name} {lived[name]} {changed[name]}" for name in NAMES), sep="\n", flush=True)


main()
