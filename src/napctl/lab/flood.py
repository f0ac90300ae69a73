"""Overload in a lab: packets that are dear to take, a server that needs its CPU, and a flood of a fixed rate.

A bed for it is `Lab.build(server_cpu=1, client_cpu=0)` and `take_as_softirq()`: all of the receiver is on one CPU.
"""

import ipaddress
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from napctl.kernel.sysfs import DeviceAttributes
from napctl.lab.bed import End, Lab, run_inside
from napctl.lab.children import require
from napctl.lab.compiled import compiled
from napctl.lab.running_generator import RunningGenerator
from napctl.lab.servers import Server, serve
from napctl.model.errors import NapctlError, NotPermitted
from napctl.model.value import Value

__all__ = [
    "DEAR_RULES",
    "FLOOD_PORT",
    "FloodResult",
    "FloodSpec",
    "RunningFlood",
    "dear_rules",
    "flood",
    "make_packets_dear",
    "peak_per_second",
    "started_flood",
    "take_as_softirq",
    "take_in_softirq",
    "tcp_server",
    "udp_server",
]


FLOOD_PORT = 7000
DEAR_RULES = 600
"""Measured: a packet costs 5 µs more, where the stack took 9 in all without them."""
MOST_RULES = 1 << 17
SENDERS = ipaddress.IPv4Address("198.18.0.0")
"""Of the addresses for benchmarks (RFC 2544), from which no packet comes."""
STRANGERS = "10.197.0.0"
"""A /16 of nobody, from which connections are opened."""
AS_SOFTIRQ = -19
"""Nice value with which a NAPI thread leaves next to nothing, as a softirq does."""


class FloodSpec(Value, frozen=True, kw_only=True):
    """What to send."""

    rate_per_second: float
    seconds: float
    host: str = ""
    """IPv4 address, also one for broadcasts; "": the server's."""
    port: int = FLOOD_PORT
    size_bytes: int = 64
    """Of the payload."""
    past_stack: bool = False
    """Frames that the generator makes itself, to the server's device: they cost it a third, so it can make more."""
    connects: bool = False
    """TCP connections of one request each, to a tcp_server(), in the place of packets; also frames of its own."""


class FloodResult(Value, frozen=True, kw_only=True):
    """What came of it."""

    seconds: float
    asked_per_second: float
    sent: int
    """Packets, or connections begun."""
    left_out: int
    """The generator could not send these in time: more than a few, and it was the limit."""
    answered: int
    cpu_share: float
    """CPU time of the generator by its time, 0 … 1."""
    answered_by_tenth: tuple[int, ...]
    """In each tenth of a second."""

    @property
    def sent_per_second(self) -> float:
        """What was offered in fact; 0 if it was ended before it began."""
        return self.sent / self.seconds if self.seconds else 0.0

    def answered_per_second(self, after_seconds: float = 0.0) -> float:
        """Goodput, from so many seconds on. Raises ValueError if it was over by then."""
        tenths = self.answered_by_tenth[round(after_seconds * 10) :]
        if not tenths:
            raise ValueError(f"the flood lasted {self.seconds} s")
        return 10 * sum(tenths) / len(tenths)


class RunningFlood(RunningGenerator[FloodResult]):
    """A flood that runs."""

    def __init__(self, process: subprocess.Popen[bytes], spec: FloodSpec):
        super().__init__(process, "the flood", spec.seconds, FloodResult)

    def wait_until_sending(self) -> None:
        """Return when it has begun. Raises NapctlError if it failed before."""
        self.wait_until("sending")


def udp_server(
    lab: Lab, *, request_us: float = 3.0, waits_in: Literal["recv", "epoll"] = "recv", port: int = FLOOD_PORT
) -> Server:
    """Start a server that answers each packet after that much work, on the server's CPU, at nice 0.

    In a session of its own: where sessions are scheduled as groups (sched(7), "The autogroup feature"), its share is
    its own, and not one with whatever else the caller runs. Raises Unsupported, NapctlError.
    """
    server = serve(lab, _command(lab, port, request_us, waits_in), port, ready=_answers)
    os.setpriority(os.PRIO_PROCESS, server.pid, 0)
    return server


def tcp_server(lab: Lab, *, request_us: float = 3.0, port: int = FLOOD_PORT) -> Server:
    """The same by TCP: it closes each connection after its first answer, also those of a flood that connects.

    Of a SYN that is not acknowledged it reminds the other side once, so that a flood is over seconds after its end.
    """
    run_inside(lab.server.namespace, ["sysctl", "-qw", "net.ipv4.tcp_synack_retries=1"])
    run_inside(lab.server.namespace, ["ip", "route", "replace", f"{STRANGERS}/16", "via", lab.client.address])
    server = serve(lab, _command(lab, port, request_us, "tcp"), port)
    os.setpriority(os.PRIO_PROCESS, server.pid, 0)
    return server


def _command(lab: Lab, port: int, request_us: float, how: str) -> list[str]:
    require("setsid")
    return ["setsid", str(compiled("floodserver")), lab.server.address, str(port), str(request_us * 1000), how]


def _answers(lab: Lab, server: Server) -> bool:
    with lab.client.namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.05)
        asking.connect((server.address, server.port))
        try:
            asking.send(b"ready?")
            return asking.recv(16) == b"ready?"
        except OSError:  # nobody listens yet
            return False


def make_packets_dear(end: End, rules: int = DEAR_RULES) -> None:
    """Let each IPv4 packet that comes to that end pass so many nftables rules. Raises Unsupported without nft."""
    require("nft")
    run_inside(end.namespace, ["nft", "-f", "-"], dear_rules(rules))


def dear_rules(number: int = DEAR_RULES) -> str:
    """For `nft -f`: so many rules, none of which a packet matches, in a table "dear". Each makes two comparisons."""
    assert 0 <= number <= MOST_RULES
    rules = "\n".join(f"ip protocol != 0 ip saddr {SENDERS + each} drop" for each in range(number))
    hook = "type filter hook prerouting priority filter; policy accept;"
    return f"table ip dear\ndelete table ip dear\ntable ip dear {{\nchain dear {{\n{hook}\n{rules}\n}}\n}}\n"


def take_as_softirq(end: End) -> None:
    """Let its NAPI threads leave as little to others as a softirq would. Raises NotPermitted."""
    for napi in end.napis():
        if napi.thread_pid is not None:
            try:
                os.setpriority(os.PRIO_PROCESS, napi.thread_pid, AS_SOFTIRQ)
            except PermissionError:
                raise NotPermitted("NAPI threads before other work need CAP_SYS_NICE") from None


def take_in_softirq(end: End) -> None:
    """Without NAPI threads, in real softirqs on that end's CPU: RPS sends packets there, as veth polls on the sender's.

    There is no ring then whose drops cost nothing: what is too much is dropped at sockets, or at that CPU's backlog.
    """
    with DeviceAttributes(end.namespace) as attributes:
        attributes.write(end.device, "threaded", "0")
        for queue in range(len(end.napis())):
            attributes.write(end.device, f"queues/rx-{queue}/rps_cpus", f"{1 << end.cpu:x}")


@contextmanager
def started_flood(lab: Lab, spec: FloodSpec) -> Iterator[RunningFlood]:
    """Send from the client namespace, on the client's CPU, until it ends or the block is left. Raises Unsupported."""
    options: dict[str, object] = {
        "host": spec.host or lab.server.address,
        "port": spec.port,
        "rate": spec.rate_per_second,
        "seconds": spec.seconds,
        "size": spec.size_bytes,
    }
    if spec.past_stack or spec.connects:
        options |= {"device": lab.client.device, "mac": lab.server.mac}
    if spec.connects:
        options["source"] = STRANGERS
    command = [str(compiled("flood")), *(f"--{name}={value}" for name, value in options.items())]
    process = lab.client.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield RunningFlood(process, spec)
    finally:
        process.kill()
        process.communicate()


def flood(lab: Lab, spec: FloodSpec) -> FloodResult:
    """Send, and wait for the end. Raises Unsupported without a C compiler, NapctlError if it failed."""
    with started_flood(lab, spec) as running:
        return running.result()


FIRST_RATE = 10_000.0
FIRST_CONNECTIONS = 3_000.0
STEP = 1.3
STEP_SECONDS = 0.8
SETTLING_SECONDS = 0.3
"""Until the buffers of a step are as full as they will be."""
PAST_PEAK = 0.9
"""Of the best goodput: two steps in a row below it, and the peak is over. (With some settings it never is.)"""
MOST_OFFERED = 4.0
"""Times the best goodput."""


def peak_per_second(lab: Lab, port: int = FLOOD_PORT, *, past_stack: bool = False, connects: bool = False) -> float:
    """The most that the server answers a second, at whatever is offered: a ramp of some ten seconds.

    Raises NapctlError if nobody answers.
    """
    first = FIRST_CONNECTIONS if connects else FIRST_RATE
    rate, best, below = first, 0.0, 0
    while below < 2 and rate < MOST_OFFERED * max(best, first):
        spec = FloodSpec(
            rate_per_second=rate, seconds=STEP_SECONDS, port=port, past_stack=past_stack, connects=connects
        )
        found = flood(lab, spec)
        answered = found.answered_per_second(SETTLING_SECONDS)
        if not answered and not best:
            raise NapctlError(f"nobody answers at port {port}")
        below = below + 1 if answered < PAST_PEAK * best else 0
        best = max(best, answered)
        rate *= STEP
    return best
