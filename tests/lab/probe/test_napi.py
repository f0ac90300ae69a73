"""What the probe promises, on the running kernel."""

import ctypes
import fcntl
import os
import re
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from napctl.model.counts import NapiCounts
from napctl.probe import Probe, ProbeReader, ProbeUnavailable
from tests.lab.helpers import bpftrace_command
from tests.lab.probe.loading import load_in

pytestmark = pytest.mark.lab

BURST = 32
"""Datagrams sent before they are received: less than a veth ring (256) and a socket buffer hold."""
EPIOCSPARAMS = 0x40088A01
CLONE_NEWNET = 0x40000000

if os.geteuid() != 0 and os.environ.get("CI") != "true":
    pytest.skip("the probe and network namespaces need root", allow_module_level=True)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


class Wire:
    """Two namespaces joined by a veth pair; the receiver's end has a real NAPI instance."""

    def __init__(self) -> None:
        tag = secrets.token_hex(3)
        self.sender_ns, self.receiver_ns = f"probe-{tag}-a", f"probe-{tag}-b"
        self.sender_dev, self.receiver_dev = f"pa{tag}", f"pb{tag}"
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> "Wire":
        run("ip", "netns", "add", self.sender_ns)
        run("ip", "netns", "add", self.receiver_ns)
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._sockets:
            end.close()
        for namespace in (self.sender_ns, self.receiver_ns):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True, timeout=60)

    def connect(self) -> None:
        a, b, macs = self.sender_dev, self.receiver_dev, ("02:00:00:00:00:01", "02:00:00:00:00:02")
        # The same ifindex every time, to make a removed and recreated device hard to tell from the one before.
        run(
            *("ip", "link", "add", "name", a, "index", "100", "netns", self.sender_ns, "type", "veth"),
            *("peer", "name", b, "index", "100", "netns", self.receiver_ns),
        )
        # With GRO here and without TSO there, veth polls; else packets take the per-CPU backlog.
        self.inside(self.receiver_ns, "ethtool", "-K", b, "gro", "on")
        self.inside(self.sender_ns, "ethtool", "-K", a, "tso", "off")
        for namespace, device, mac, ip in (
            (self.sender_ns, a, macs[0], "10.9.0.1"),
            (self.receiver_ns, b, macs[1], "10.9.0.2"),
        ):
            # No IPv6 address and fixed neighbours: nothing but the test's datagrams travels.
            self.inside(namespace, "ip", "link", "set", device, "address", mac, "addrgenmode", "none", "up")
            self.inside(namespace, "ip", "addr", "add", f"{ip}/24", "dev", device)
        neighbour = ("nud", "permanent", "dev", a)
        self.inside(self.sender_ns, "ip", "neigh", "replace", "10.9.0.2", "lladdr", macs[1], *neighbour)
        # The sender's end was up first: what it is given is dropped until the kernel has noticed that there is a link.
        up = 'until [ "$(cat /sys/class/net/{}/operstate)" = up ]; do sleep 0.01; done'
        self.inside(self.sender_ns, "sh", "-c", up.format(a))

    def disconnect(self) -> None:
        self.inside(self.sender_ns, "ip", "link", "del", self.sender_dev)

    def set_attribute(self, name: str, value: int) -> None:
        self.inside(self.receiver_ns, "sh", "-c", f"echo {value} > /sys/class/net/{self.receiver_dev}/{name}")

    @staticmethod
    def inside(namespace: str, *command: str) -> None:
        run("ip", "netns", "exec", namespace, *command)

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """A sender, and the receiver it is connected to."""
        with inside(self.receiver_ns):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        receiver.bind(("10.9.0.2", 0))
        with inside(self.sender_ns):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.connect(receiver.getsockname())
        self._sockets += [sender, receiver]
        return sender, receiver

    def counts(self, probe: ProbeReader) -> NapiCounts:
        """Of the receiver's one NAPI instance, the newest if there were several."""
        return self.all_counts(probe)[-1]

    def all_counts(self, probe: ProbeReader) -> list[NapiCounts]:
        return [napi for napi in probe.read().napis if napi.device == self.receiver_dev]


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread in another network namespace (os.setns is there only since Python 3.12)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{namespace}").open() as away:
        assert libc.setns(away.fileno(), CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), CLONE_NEWNET) == 0


def receive(receiver: socket.socket, expected: int) -> int:
    """Take `expected` datagrams, or what came within half a minute."""
    received, until = 0, time.monotonic() + 30
    while received < expected and time.monotonic() < until:
        if select.select([receiver], [], [], 0.05)[0]:
            receiver.recv(64)
            received += 1
    return received


def transfer(sender: socket.socket, receiver: socket.socket, datagrams: int) -> int:
    """Send in bursts of growing size, and receive; how many arrived."""
    received = sent = size = 0
    while sent < datagrams:
        size = min(size % BURST + 1, datagrams - sent)
        for _ in range(size):
            sender.send(b"napctl")
        sent += size
        received += receive(receiver, size)
    return received


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.fixture
def probe() -> Iterator[Probe]:
    with Probe.load() as probe:
        yield probe


def test_histograms_hold_exactly_the_packets_received(wire: Wire, probe: Probe) -> None:
    arrived = transfer(*wire.sockets(), 3000)

    napi = wire.counts(probe)

    assert arrived == 3000
    assert napi.all.packets == arrived
    assert napi.all.polls >= arrived / BURST
    assert probe.read().lost_polls == 0


def test_another_reader_reads_the_same_and_goes_on_when_the_probe_is_closed(wire: Wire) -> None:
    sender, receiver = wire.sockets()
    with Probe.load() as probe:
        with probe.reader() as reader:
            transfer(sender, receiver, 100)
            assert wire.counts(reader) == wire.counts(probe)
        transfer(sender, receiver, 100)
        last, reader = wire.counts(probe), probe.reader()
        assert last.all.packets == 200, "whoever closes a reader leaves the probe open"
    with reader:
        transfer(sender, receiver, 100)
        assert wire.counts(reader) == last, "nobody counts any more"


def test_an_instance_is_named_by_id_device_and_namespace(wire: Wire, probe: Probe) -> None:
    sender, receiver = wire.sockets()
    transfer(sender, receiver, 10)

    napi = wire.counts(probe)

    assert napi.napi_id == receiver.getsockopt(socket.SOL_SOCKET, 56)  # SO_INCOMING_NAPI_ID
    assert napi.ifindex == 100
    assert napi.netns == Path(f"/run/netns/{wire.receiver_ns}").stat().st_ino
    assert [other.napi_id for other in probe.read().napis].count(napi.napi_id) == 1


def test_softirqs_and_napi_threads_are_told_apart(wire: Wire, probe: Probe) -> None:
    sender, receiver = wire.sockets()
    transfer(sender, receiver, 500)
    by_softirq = wire.counts(probe)

    wire.set_attribute("threaded", 1)
    transfer(sender, receiver, 500)
    by_thread = wire.counts(probe)

    assert by_softirq.softirq.packets == 500
    assert by_softirq.softirq == by_softirq.all
    assert by_thread.thread.packets == 500
    assert by_thread.softirq == by_softirq.softirq
    assert not by_thread.busy_poll.polls
    assert not by_thread.pollers


def receive_by_epoll(poll: select.epoll, receiver: socket.socket, expected: int) -> int:
    received, until = 0, time.monotonic() + 30
    while received < expected and time.monotonic() < until:
        if poll.poll(0.1):
            with suppress(BlockingIOError):
                while receiver.recv(64):
                    received += 1
    return received


@pytest.mark.parametrize(("burst", "budget"), [(10, 64), (100, 128)])
def test_a_busy_polling_process_is_named(wire: Wire, probe: Probe, burst: int, budget: int) -> None:
    sender, receiver = wire.sockets()
    transfer(sender, receiver, 1)  # from its first packet the socket learns its NAPI id, and from it epoll
    wire.set_attribute("napi_defer_hard_irqs", 100)  # leave the polling to us …
    wire.set_attribute("gro_flush_timeout", 100_000_000)  # … for 100 ms
    received = 0
    with select.epoll() as poll:
        poll.register(receiver, select.EPOLLIN)
        fcntl.ioctl(poll, EPIOCSPARAMS, struct.pack("=IHBB", 200, budget, 1, 0))
        for _ in range(2000 // burst):
            for _ in range(burst):
                sender.send(b"napctl")
            received += receive_by_epoll(poll, receiver, burst)
        poll.poll(0.01)  # nothing is there: an empty busy poll
    wire.set_attribute("gro_flush_timeout", 0)
    wire.set_attribute("napi_defer_hard_irqs", 0)

    napi = wire.counts(probe)
    polls = napi.busy_poll
    (poller,) = napi.pollers

    assert received == 2000
    assert napi.all.packets == 2001
    assert polls.packets > 1000
    assert (polls.counts[65] > 0) == (polls.packets_above > 0) == (burst > 64)
    assert (poller.pid, poller.name) == (os.getpid(), Path("/proc/self/comm").read_text().strip())
    assert (poller.polls, poller.empty, poller.packets) == (polls.polls, polls.empty, polls.packets)
    assert poller.empty


def test_counts_agree_with_bpftrace(wire: Wire, probe: Probe) -> None:
    if not shutil.which("bpftrace"):
        pytest.skip("bpftrace is not installed")
    sender, receiver = wire.sockets()
    script = f"""
        BEGIN {{ printf("ready\\n"); }}
        tracepoint:napi:napi_poll /str(args->dev_name) == "{wire.receiver_dev}"/ {{ @[args->work] = count(); }}
    """
    with subprocess.Popen(bpftrace_command(script), stdout=subprocess.PIPE, text=True) as bpftrace:
        assert bpftrace.stdout
        while bpftrace.stdout.readline() != "ready\n":
            assert bpftrace.poll() is None
        transfer(sender, receiver, 3000)
        ours = wire.counts(probe).all.counts
        bpftrace.send_signal(signal.SIGINT)
        output = bpftrace.stdout.read()
    theirs = {int(work): int(polls) for work, polls in re.findall(r"@\[(\d+)\]: (\d+)", output)}

    assert sum(work * polls for work, polls in theirs.items()) == pytest.approx(3000, rel=0.01)
    for work, polls in enumerate(ours):
        assert polls == pytest.approx(theirs.get(work, 0), rel=0.01), work


@pytest.mark.alone
def test_a_removed_and_recreated_device_does_not_mix_counts(probe: Probe) -> None:
    expected = list(range(10, 34))  # more often than the probe looks for a place
    with Wire() as wire:
        for number, datagrams in enumerate(expected):
            if number:
                wire.disconnect()
                wire.connect()
            transfer(*wire.sockets(), datagrams)
        napis = wire.all_counts(probe)

    assert [napi.all.packets for napi in napis] == expected
    assert len({napi.napi_id for napi in napis}) == len(napis)


def test_a_backlog_has_no_device(wire: Wire, probe: Probe) -> None:
    wire.inside(wire.receiver_ns, "ethtool", "-K", wire.receiver_dev, "gro", "off")
    transfer(*wire.sockets(), 100)

    backlogs = [napi for napi in probe.read().napis if napi.device == "(no_device)"]

    assert sum(napi.all.packets for napi in backlogs) >= 100
    assert {(napi.napi_id, napi.ifindex, napi.netns) for napi in backlogs} == {(0, 0, 0)}
    assert not wire.all_counts(probe)


def net_rx_softirqs() -> dict[int, int]:
    lines = Path("/proc/softirqs").read_text().splitlines()
    cpus = [int(word.removeprefix("CPU")) for word in lines[0].split()]
    counts = next(line for line in lines if line.strip().startswith("NET_RX:")).split()[1:]
    return dict(zip(cpus, map(int, counts), strict=False))


def test_softirqs_agree_with_proc_and_their_time_is_plausible(wire: Wire, probe: Probe) -> None:
    """Of two readings of /proc each: others have softirqs all the time."""
    ends, began = wire.sockets(), time.monotonic_ns()
    proc_first, ours_before, proc_second = net_rx_softirqs(), probe.read().cpus, net_rx_softirqs()
    transfer(*ends, 3000)
    proc_third, ours_after, proc_fourth = net_rx_softirqs(), probe.read().cpus, net_rx_softirqs()
    ended = time.monotonic_ns()

    assert [cpu.cpu for cpu in ours_after] == sorted(os.sched_getaffinity(0) | {cpu.cpu for cpu in ours_after})
    for before, after in zip(ours_before, ours_after, strict=True):
        assert before.net_rx_softirqs is not None
        assert after.net_rx_softirqs is not None
        assert before.net_rx_softirq_ns is not None
        assert after.net_rx_softirq_ns is not None
        counted = after.net_rx_softirqs - before.net_rx_softirqs
        busy_ns = after.net_rx_softirq_ns - before.net_rx_softirq_ns
        least, most = (
            proc_third[after.cpu] - proc_second[after.cpu], proc_fourth[after.cpu] - proc_first[after.cpu]
        )  # fmt: skip
        assert 0.99 * least - 5 <= counted <= 1.01 * most + 5
        assert counted * 100 <= busy_ns + 1000 <= ended - began + 1000
    assert sum(cpu.net_rx_softirqs or 0 for cpu in ours_after) >= 3000 / BURST


def test_two_probes_do_not_disturb_each_other(wire: Wire, probe: Probe) -> None:
    ends = wire.sockets()
    transfer(*ends, 100)
    with Probe.load() as second:
        transfer(*ends, 200)
        assert wire.counts(second).all.packets == 200
    transfer(*ends, 400)

    assert wire.counts(probe).all.packets == 700


def test_reading_takes_milliseconds_and_closing_twice_is_harmless(wire: Wire) -> None:
    probe = Probe.load()
    transfer(*wire.sockets(), 100)
    began = time.process_time()
    for _ in range(20):
        probe.read()
    taken = (time.process_time() - began) / 20
    assert set(probe.prog_fds()) >= {"on_napi_poll", "on_softirq_entry", "on_softirq_exit"}
    probe.close()
    probe.close()

    assert taken < 0.01


def test_it_loads_with_the_two_capabilities_alone() -> None:
    others = "-all,+bpf,+perfmon"
    assert load_in("Probe", "setpriv", f"--bounding-set={others}", f"--inh-caps={others}") == ""


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        ("-bpf,-perfmon,-sys_admin", "CAP_BPF and CAP_PERFMON are missing"),
        ("-perfmon,-sys_admin", "CAP_PERFMON is missing"),
    ],
)
def test_a_missing_capability_is_named(dropped: str, reason: str) -> None:
    assert load_in("Probe", "setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}") == reason


def test_missing_btf_is_named(tmp_path: Path) -> None:
    hide = f'mount --bind {tmp_path} /sys/kernel/btf && exec "$@"'
    reason = load_in("Probe", "unshare", "--mount", "sh", "-c", hide, "sh")

    assert reason == "no BTF: /sys/kernel/btf/vmlinux is missing"


def test_unusable_btf_is_named(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(bytes(100))
    hide = f'mount --bind {tmp_path} /sys/kernel/btf && exec "$@"'
    reason = load_in("Probe", "unshare", "--mount", "sh", "-c", hide, "sh")

    assert reason.startswith("no usable BTF: /sys/kernel/btf/vmlinux: ")


def test_a_missing_libbpf_is_named() -> None:
    hide = 'for lib in $(ldconfig -p | sed -n "s/.*libbpf.so.1 .*=> //p"); do mount --bind /dev/null $lib; done; "$@"'
    reason = load_in("Probe", "unshare", "--mount", "sh", "-c", hide, "sh")

    assert reason == "libbpf.so.1 is not installed (package libbpf1)"


def test_unavailable_is_an_exception_with_a_reason() -> None:
    assert ProbeUnavailable("why").reason == str(ProbeUnavailable("why")) == "why"
