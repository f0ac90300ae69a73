"""Connections without a NAPI id: the reason that is told is the one that holds."""

import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from napctl.attach.inspect_process import look_at
from napctl.kernel import processes
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.sockets import IPPROTO_MPTCP
from napctl.lab.bed import Lab
from tests.lab.helpers import Napctl, in_namespace

pytestmark = pytest.mark.lab

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connection(
    stack: ExitStack, here: NetworkNamespace, there: NetworkNamespace, address: str, *,
    family: socket.AddressFamily = socket.AF_INET, protocol: int = 0, client_protocol: int = 0,
) -> socket.socket:  # fmt: skip
    """The server's end of a TCP connection over which something came."""
    with here.entered():
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM, protocol))
    listener.bind(("" if family == socket.AF_INET6 else address, 0))
    listener.listen()
    with there.entered():
        client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM, client_protocol))
    client.settimeout(30)
    client.connect((address, listener.getsockname()[1]))
    client.sendall(b"anything")
    server, _ = listener.accept()
    stack.enter_context(server)
    assert server.recv(100)
    return server


def told(stack: ExitStack, here: NetworkNamespace, *watched: socket.socket) -> str:
    """What a look at this process says of an epoll instance that watches these, if it is in that namespace as they."""
    instance = stack.enter_context(select.epoll())
    for each in watched:
        instance.register(each.fileno(), select.EPOLLIN)
    process = processes.process(os.getpid())
    assert process is not None
    with here.entered():
        look = look_at(process)
    assert look is not None
    (found,) = (each for each in look.instances if each.fd == instance.fileno())
    assert bool(found.napis) != bool(found.unfed)
    return found.unfed


def alone(stack: ExitStack) -> NetworkNamespace:
    netns = stack.enter_context(NetworkNamespace.create())
    in_namespace(netns, "ip", "link", "set", "lo", "up")
    return netns


def pair(stack: ExitStack) -> tuple[NetworkNamespace, NetworkNamespace]:
    """Two namespaces with a plain veth between them: veth0, 10.78.0.1, in the first."""
    here, there = alone(stack), alone(stack)
    held = f"/proc/{os.getpid()}/fd/{there.fd}"
    in_namespace(here, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1", "netns", held)
    for netns, device, address in ((here, "veth0", "10.78.0.1/24"), (there, "veth1", "10.78.0.2/24")):
        in_namespace(netns, "ip", "address", "add", address, "dev", device)
        in_namespace(netns, "ip", "link", "set", device, "up")
    return here, there


def test_a_connection_that_a_napi_instance_feeds_needs_no_reason(lab: Lab, stack: ExitStack) -> None:
    ours = connection(stack, lab.server.namespace, lab.client.namespace, lab.server.address)
    assert told(stack, lab.server.namespace, ours) == ""


def test_mptcp(lab: Lab, stack: ExitStack, napctl: Napctl) -> None:
    """With a real client: the same over plain TCP is fed."""
    here = lab.server.namespace
    ours = connection(
        stack, here, lab.client.namespace, lab.server.address, protocol=IPPROTO_MPTCP, client_protocol=IPPROTO_MPTCP
    )
    assert told(stack, here, ours).startswith("its connections are MPTCP: the kernel gives NAPI ids to their subflows")
    done = napctl("attach", os.getpid(), "--dry-run")
    assert "nothing to poll: its connections are MPTCP" in " ".join(done.stdout.split()), done
    assert napctl("attach", os.getpid()).failed_with(3, "its connections are MPTCP", "nothing was changed")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_loopback(stack: ExitStack, family: socket.AddressFamily) -> None:
    """Also where the socket is of IPv6, and its peer's address an IPv4 one."""
    here = alone(stack)
    ours = connection(stack, here, here, "127.0.0.1", family=family)
    assert told(stack, here, ours) == "its connections come over loopback, which has no NAPI instance"


def test_a_plain_veth(stack: ExitStack) -> None:
    here, there = pair(stack)
    ours = connection(stack, here, there, "10.78.0.1")
    why = "come over veth0, a veth, which has NAPI instances only with gro on or XDP"
    assert told(stack, here, ours) == f"its connections {why}"

    over_lo = connection(stack, here, here, "10.78.0.1")
    both = told(stack, here, ours, over_lo)
    assert f"some of its connections {why}" in both
    assert "some of its connections come over loopback" in both, "an address of this host's own"


def test_a_tun(stack: ExitStack) -> None:
    here = alone(stack)
    with here.entered():
        tun = os.open("/dev/net/tun", os.O_RDWR)
        stack.callback(os.close, tun)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
        in_namespace(here, "ip", "address", "add", "10.79.0.1/24", "dev", "tun0")
        in_namespace(here, "ip", "link", "set", "tun0", "up")
        ours = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        ours.connect(("10.79.0.2", 9))
    assert told(stack, here, ours) == "its connections come over tun0 (tun), which has no NAPI instance"


def test_without_a_connection_that_is_the_reason(stack: ExitStack, napctl: Napctl) -> None:
    instance = stack.enter_context(select.epoll())
    instance.register(stack.enter_context(socket.create_server(("127.0.0.1", 0))).fileno())
    done = napctl("attach", os.getpid(), "--dry-run")
    assert "it has no connection yet" in " ".join(done.stdout.split()), done
