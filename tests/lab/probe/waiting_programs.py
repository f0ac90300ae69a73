"""Programs whose threads wait for packets in some way, and what is seen of them."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from napctl.kernel.waiting import Waiting, current_wait
from napctl.model.waits import ThreadWaits
from tests.lab.helpers import until

PRELUDE = """
import ctypes, fcntl, os, select, socket, struct, sys, threading, time
libc = ctypes.CDLL(None)

def ready(*facts):
    print(*facts, flush=True)

def on_word():
    # From a pipe: no call that counts.
    os.read(0, 1)

def udp():
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname())
    return receiver, sender
"""


class Program:
    """A Python program that runs; it has said `facts` as it became ready."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid
        self.facts = [int(word) for word in self.line().split()]

    def line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def go(self) -> None:
        assert self._process.stdin
        self._process.stdin.write(".")
        self._process.stdin.flush()

    def do(self) -> None:
        """Let it go on, and wait until it says that it is done."""
        self.go()
        assert self.line() == "done\n"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def running(code: str) -> Iterator[Program]:
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


def only(waits: tuple[ThreadWaits, ...]) -> ThreadWaits:
    (one,) = waits
    return one


def blocked(pid: int, tid: int | None = None) -> Waiting:
    found = until(lambda: current_wait(pid, tid or pid), "a thread that is blocked")
    assert found is not None
    return found


ECHO = """
    receiver, sender = udp()
    epoll = select.epoll()
    epoll.register(receiver, select.EPOLLIN)
    ready(epoll.fileno(), receiver.fileno())
    def loop():
        while True:
            for _ in epoll.poll(TIMEOUT):
                receiver.recv(100)
    threading.Thread(target=loop, daemon=True).start()
    while True:
        on_word()
        for _ in range(100):
            sender.send(b"napctl")
            time.sleep(0.001)
        ready("done")
"""
"""An epoll loop in a thread of its own, which is fed by the first one when told so."""
