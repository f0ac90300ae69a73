"""A program that waits as a suspending server does, and what the probe has counted of it."""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from napctl.kernel import epoll
from napctl.lab.bed import Lab
from napctl.model.settings import NapiSettings
from napctl.model.suspension_counts import SuspensionCounts
from napctl.probe.suspension import SuspensionProbe
from tests.lab.helpers import PREFERS, set_napi

SO_INCOMING_NAPI_ID = 56
SUSPEND_MS = 20


def suspending(*, timeout_ms: float = SUSPEND_MS, deferral_us: int = 200) -> NapiSettings:
    return NapiSettings(
        defer_hard_irqs=100,
        gro_flush_timeout_ns=deferral_us * 1000,
        irq_suspend_timeout_ns=round(timeout_ms * 1_000_000),
    )


def counts(probe: SuspensionProbe, lab: Lab) -> list[SuspensionCounts]:
    """Of the server's instances, by id; those that had no packet yet are not among them."""
    return sorted(
        (found for found in probe.read() if found.netns == lab.server.namespace.inode), key=lambda each: each.napi_id
    )


def window(probe: SuspensionProbe, lab: Lab, seconds: float) -> list[SuspensionCounts]:
    """What comes within so many seconds, for each instance that the probe knows by the end."""
    before = {each.napi_id: each for each in counts(probe, lab)}
    time.sleep(seconds)
    return [
        each - before.get(each.napi_id, SuspensionCounts(napi_id=each.napi_id, netns=each.netns))
        for each in counts(probe, lab)
    ]


class Follower:
    """A program of one thread that waits in epoll_wait as a suspending server does, here under the test's control.

    It runs on the server's CPU, as the NAPI thread does, or apart. Now and then the kernel resumes at once what it has
    suspended: the thread was scheduled already, or apart is at the end of the poll that woke it.
    """

    def __init__(self, lab: Lab, settings: NapiSettings | None = None, *, apart: bool = False) -> None:
        self._cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {lab.client.cpu if apart else lab.server.cpu})
        with lab.server.namespace.entered():
            self.receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.receiver.bind((lab.server.address, 0))
        with lab.client.namespace.entered():
            self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sender.connect(self.receiver.getsockname())
        self.poll = select.epoll()
        self.poll.register(self.receiver, select.EPOLLIN)
        self.receive()  # from its first packet the socket learns its NAPI id, and from it epoll
        self.napi_id = self.receiver.getsockopt(socket.SOL_SOCKET, SO_INCOMING_NAPI_ID)
        set_napi(lab, self.napi_id, settings or suspending())
        epoll.set_params(self.poll.fileno(), PREFERS)

    def receive(self) -> None:
        """Send one datagram, and have epoll_wait return it: that suspends."""
        self.sender.send(b"napctl")
        assert self.poll.poll(30)
        self.receiver.recv(64)

    def rest(self) -> None:
        """An epoll_wait that returns nothing: that resumes."""
        assert not self.poll.poll(0.01)

    def close(self) -> None:
        os.sched_setaffinity(0, self._cpus)
        for each in (self.poll, self.sender, self.receiver):
            each.close()


@contextmanager
def following(lab: Lab, settings: NapiSettings | None = None, *, apart: bool = False) -> Iterator[Follower]:
    follower = Follower(lab, settings, apart=apart)
    try:
        yield follower
    finally:
        follower.close()
