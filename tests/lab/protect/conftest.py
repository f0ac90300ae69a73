"""A journal, and what tests of storm control do with real packets."""

import errno
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from bench.probecost import compiled

from napctl.change.journal import Journal
from napctl.change.transaction import begun
from napctl.kernel.xdp import XdpDevice, exchange_program, xdp_device
from napctl.lab.bed import End, Lab
from napctl.probe.libbpf import BpfObject
from napctl.protect.storm_control import Armed, arm
from tests.lab.helpers import Napctl

SO_RCVBUFFORCE = 33


@pytest.fixture
def journal(napctl: Napctl) -> Iterator[Journal]:
    with Journal(napctl.state) as journal:
        yield journal


def ifindex_of(end: End) -> int:
    with end.namespace.entered():
        return socket.if_nametoindex(end.device)


def xdp_of(end: End) -> XdpDevice:
    found = xdp_device(end.namespace, ifindex_of(end))
    assert found is not None
    return found


def armed(journal: Journal, lab: Lab, *, generic: bool = False) -> Armed:
    """On the server's device, in a transaction of its own."""
    transaction = begun("apply", lab.server.device, ())
    return arm(journal, lab.server.namespace, ifindex_of(lab.server), transaction, generic=generic)


@contextmanager
def somebody_elses_program() -> Iterator[int]:
    """The descriptor of an XDP program that is none of napctl's."""
    program: BpfObject = compiled("empty_xdp")
    try:
        program.load()
        yield program.program_fds()["passes"]
    finally:
        program.close()


def attach_somebody_elses(end: End, fd: int, *, expected_fd: int | None = None) -> None:
    exchange_program(end.namespace, ifindex_of(end), fd, expected_fd, generic=False)


def inside(end: End, *command: str) -> str:
    """What a command writes that is run in the namespace of an end, and must not fail."""
    with end.namespace.entered():
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def send(sender: socket.socket, frame: bytes, times: int) -> None:
    """That often, also if the receiver's ring is full in between."""
    for _ in range(times):
        while True:
            try:
                sender.send(frame)
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                time.sleep(0.001)


@contextmanager
def frames(end: End) -> Iterator[socket.socket]:
    """A socket on an end's device, to send and receive whole frames."""
    with end.namespace.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    with sender:
        sender.bind((end.device, 0x0003))
        sender.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        yield sender
