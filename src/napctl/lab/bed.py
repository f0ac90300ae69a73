"""The bed: two network namespaces joined by veth, which takes its packets the way a NIC does.

Crash proof by construction: the namespaces are held by descriptors of this process only, and what is started in them
dies with this process. So the kernel itself removes everything, also after kill -9; nothing has to remember to.
"""

import os
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.sysfs import DeviceAttributes
from napctl.lab.children import Children, require
from napctl.model.errors import BadInput, NapctlError, NotPermitted, Unsupported
from napctl.model.machine import Napi

__all__ = ["End", "Lab", "join", "run_inside"]


AUTOCORKING = Path("/proc/sys/net/ipv4/tcp_autocorking")
TXREHASH = Path("/proc/sys/net/core/txrehash")
LINK_SECONDS = 30.0
"""To wait for it at most."""


@dataclass(frozen=True)
class End:
    """One end of the bed: a network namespace with one device, whose packets are processed on one CPU."""

    name: str
    """"server" or "client"."""
    namespace: NetworkNamespace
    device: str
    address: str
    cpu: int
    children: Children

    @property
    def mac(self) -> str:
        """Of the device."""
        return "02:00:00:00:00:" + self.address.rsplit(".", 1)[1].zfill(2)

    def napis(self) -> list[Napi]:
        """NAPI instances of the device, one for each queue, by id; none if it has gone."""
        try:
            with self.namespace.entered():
                ifindex = socket.if_nametoindex(self.device)
        except OSError:
            return []
        with Netdev(self.namespace) as netdev:
            return netdev.napis(ifindex)

    def start(
        self,
        command: Sequence[str],
        *,
        user: str | None = None,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start a command in this namespace, on this CPU, as `user` (default: as this process), and return at once.

        It is killed when this process ends. (A command that changes its user itself escapes that: name the user here.)
        Raises Unsupported if a tool is missing.
        """
        return self.children.start(command, self.namespace, self.cpu, user, stdout, stderr)


class Lab:
    """A bed. Use as a context manager; leaving it lets the kernel remove what nobody else holds."""

    def __init__(self, server: NetworkNamespace, client: NetworkNamespace, *, server_cpu: int = 0, client_cpu: int = 1):
        self._children = Children()
        self.server = End("server", server, "server0", "10.199.0.1", server_cpu, self._children)
        self.client = End("client", client, "client0", "10.199.0.2", client_cpu, self._children)

    @staticmethod
    def build(*, queues: int = 1, server_cpu: int = 0, client_cpu: int = 1) -> "Lab":
        """A new bed whose devices have `queues` RX and TX queues each.

        Raises BadInput for a CPU that this process may not use, Unsupported with the package to install for a missing
        tool, NotPermitted for a missing capability.
        """
        for tool in ("ip", "ethtool"):
            require(tool)
        for cpu in (server_cpu, client_cpu):
            if cpu not in os.sched_getaffinity(0):
                raise BadInput(f"the lab needs CPU {cpu}, and this process may not run there")
        with ExitStack() as undo:
            server = undo.enter_context(NetworkNamespace.create())
            client = undo.enter_context(NetworkNamespace.create())
            lab = undo.enter_context(Lab(server, client, server_cpu=server_cpu, client_cpu=client_cpu))
            join(lab.server, lab.client, queues)
            undo.pop_all()
        return lab

    def close(self) -> None:
        """Let both namespaces go. What was started in them and still runs is killed."""
        # The veth pair is left to the kernel: it removes it after the last connection has exchanged its FINs.
        self._children.close()
        self.server.namespace.close()
        self.client.namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def join(one: End, other: End, queues: int = 1) -> None:
    """By a veth with that many RX and TX queues. Raises as Lab.build()."""
    _connect(one, other, queues)
    for end, far in ((one, other), (other, one)):
        _configure(end, far, queues)
    _wait_for_link(one)
    for end in (one, other):
        _process_packets_on_its_cpu(end, queues)


def _connect(server: End, client: End, queues: int) -> None:
    size = f"numrxqueues {queues} numtxqueues {queues}"
    peer = f"peer name {client.device} {size} netns /proc/self/fd/{client.namespace.fd}"
    line = f"link add name {server.device} {size} type veth {peer}"
    run_inside(server.namespace, ["ip", "-batch", "-"], line, pass_fds=[client.namespace.fd])


def _configure(end: End, other: End, queues: int) -> None:
    # veth has NAPI instances only if the receiver has GRO on and the sender has TSO off (drivers/net/veth.c:
    # veth_set_features, veth_skb_is_eligible_for_gro); else its packets go through the per-CPU backlog.
    run_inside(end.namespace, ["ethtool", "-K", end.device, "gro", "on", "tso", "off"])
    if queues > 1:
        run_inside(end.namespace, ["ethtool", "-L", end.device, "rx", str(queues), "tx", str(queues)])
    lines = (
        "link set dev lo up",
        # Fixed addresses and neighbours, and no IPv6: an idle bed is silent, nothing but the load travels.
        f"link set dev {end.device} address {end.mac} addrgenmode none",
        f"address add {end.address}/24 dev {end.device}",
        f"link set dev {end.device} up",
        f"neighbour add {other.address} lladdr {other.mac} nud permanent dev {end.device}",
    )
    run_inside(end.namespace, ["ip", "-batch", "-"], "\n".join(lines))
    # A NIC frees what it has sent at once, veth when the receiver has polled it. Until then TCP would hold back what is
    # written to the same connection (tcp_should_autocork), and who defers polls would make requests wait twice.
    # A NIC chooses the RX queue of a flow by its addresses, and so for good; with veth the sender does, and Linux takes
    # another one when it sends something again (sk_rethink_txhash() in include/net/sock.h; txrehash since 5.18).
    with end.namespace.entered():
        AUTOCORKING.write_text("0")  # /proc/sys/net shows the namespace of the writer
        if TXREHASH.exists():
            TXREHASH.write_text("0")


def _wait_for_link(end: End) -> None:
    """It was up before its peer. What it is given to send is dropped until the kernel has noticed that there is a link,
    for which it needs a CPU and the lock of all devices (linkwatch_do_dev() in net/core/link_watch.c, dev_activate() in
    net/sched/sch_generic.c). The peer has found a link when it was set up, and sends at once."""
    deadline = time.monotonic() + LINK_SECONDS
    with DeviceAttributes(end.namespace) as attributes:
        while attributes.read(end.device, "operstate") != "up":
            if time.monotonic() > deadline:
                raise NapctlError(f"building the lab: {end.device} has no link")
            time.sleep(0.001)


def _process_packets_on_its_cpu(end: End, queues: int) -> None:
    """NAPI threads on the end's CPU: veth's polls would run on the sender's, where no NIC's interrupt would land."""
    with DeviceAttributes(end.namespace) as attributes:
        attributes.write(end.device, "threaded", "1")
    napis = end.napis()
    if len(napis) != queues or None in (napi.thread_pid for napi in napis):
        threads = sum(napi.thread_pid is not None for napi in napis)
        raise Unsupported(f"{end.device}: {queues} queues gave {len(napis)} NAPI instances with {threads} threads")
    for napi in napis:
        assert napi.thread_pid is not None
        try:
            os.sched_setaffinity(napi.thread_pid, {end.cpu})
            os.setpriority(os.PRIO_PROCESS, napi.thread_pid, os.getpriority(os.PRIO_PROCESS, 0))  # as what is started
        except PermissionError:
            raise NotPermitted("keeping the lab's NAPI threads on their CPU needs CAP_SYS_NICE") from None


def run_inside(namespace: NetworkNamespace, command: list[str], text: str = "", pass_fds: Sequence[int] = ()) -> None:
    """Run a tool in a namespace, `text` on its standard input. Raises NotPermitted, NapctlError with what it said."""
    with namespace.entered():
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False, pass_fds=pass_fds)
    if done.returncode:
        why = (done.stderr or done.stdout).strip().splitlines()
        reason = f"building the lab: {' '.join(command[:2])}: {why[0] if why else done.returncode}"
        if "not permitted" in reason:
            raise NotPermitted(f"{reason}: it needs CAP_NET_ADMIN")
        raise NapctlError(reason)
