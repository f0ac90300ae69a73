"""Open-loop load on a server of the lab: `openloop.c`, compiled at first use, and its results."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

from napctl.kernel.netdev import Netdev
from napctl.lab.bed import Lab
from napctl.lab.compiled import compiled
from napctl.lab.running_generator import RunningGenerator
from napctl.lab.servers import Server
from napctl.model.errors import Unsupported
from napctl.model.machine import SCHEMA
from napctl.model.settings import NapiSettings
from napctl.model.value import Value

__all__ = ["POLLED", "LoadResult", "LoadSpec", "Protocol", "RunningLoad", "run", "started"]


# Longer than a tick (4 ms at HZ=250): a timer that is the CPU's next one is programmed into the hardware at each poll,
# in a virtual machine at the price of an exit. Measured: with 200 µs the generator was up to three times as busy.
POLLED = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=5_000_000)
Protocol = Literal["memcached", "http", "redis"]


class LoadSpec(Value, frozen=True, kw_only=True):
    """What load to make."""

    rate_per_second: float
    """Mean rate of Poisson arrivals; 0: connections are open and no requests are made."""
    seconds: float
    """Length of the measured part."""
    warmup_seconds: float = 0.5
    drain_seconds: float = 1.0
    """How long to wait for outstanding answers at the end, at most."""
    connections: int = 16
    keys_per_get: int = 1
    closed_depth: int = 0
    """Not 0: a closed loop with that many requests outstanding on each connection; only to find the saturating load."""
    seed: int = 1
    protocol: Protocol = "memcached"
    """What the server speaks. It is asked for key0, …; by HTTP/1.1 for /key0, on connections that stay."""
    requests_per_connection: int = 0
    """Not 0: after that many answers a connection is reset and opened anew, so it may come to another listener. What is
    due meanwhile waits, and its latency says so. The first connections carry one request more, before the load."""
    sleeps: bool = False
    """Between requests, instead of taking all of its CPU. Latencies are partly its own then."""


class LoadResult(Value, frozen=True, kw_only=True):
    """What came of it. Latencies count from the moment a request was due, not from when it could be sent."""

    schema: int = SCHEMA
    seed: int
    seconds: float
    """Length of the measured part; shorter than asked if the load was stopped."""
    asked_per_second: float
    achieved_per_second: float
    """Answers received in the measured part, per second of it."""
    sent: int
    answered: int
    unanswered: int
    late_share: float
    """Share of requests that the generator sent more than 100 µs after they were due: its own delay, 0 … 1."""
    cpu_share: float
    """CPU time of the generator by its time, 0 … 1."""
    busy_share: float
    """The same without fruitless polls; near 1 the generator, not the server, is what limits."""
    histogram: tuple[tuple[float, int], ...]
    """(latency in µs, requests): requests with at most that latency and more than the entry before; error below 1 %."""

    def percentile_us(self, share: float) -> float | None:
        """The latency that `share` (0 … 1) of all answered requests did not exceed, µs; None without any."""
        wanted = share * sum(count for _, count in self.histogram)
        seen = 0
        for upper_us, count in self.histogram:
            seen += count
            if seen >= wanted:
                return upper_us
        return None

    @property
    def p50_us(self) -> float | None:
        """Median latency, µs."""
        return self.percentile_us(0.5)

    @property
    def p99_us(self) -> float | None:
        """99th percentile, µs."""
        return self.percentile_us(0.99)

    @property
    def p999_us(self) -> float | None:
        """99.9th percentile, µs."""
        return self.percentile_us(0.999)


class RunningLoad(RunningGenerator[LoadResult]):
    """A load that runs."""

    def __init__(self, process: subprocess.Popen[bytes], spec: LoadSpec):
        seconds = spec.warmup_seconds + spec.seconds + spec.drain_seconds
        super().__init__(process, "the load generator", seconds, LoadResult)

    def wait_for_warmup(self) -> None:
        """Return when the measured part begins. Raises NapctlError if the load failed before."""
        self.wait_until("measuring")


@contextmanager
def started(lab: Lab, server: Server, spec: LoadSpec) -> Iterator[RunningLoad]:
    """Make the load in the client namespace, on the client's CPU, until it ends or the block is left.

    Raises Unsupported without a C compiler, and before Linux 6.13.
    """
    options = {
        "host": server.address,
        "port": server.port,
        "rate": spec.rate_per_second,
        "seconds": spec.seconds,
        "warmup": spec.warmup_seconds,
        "drain": spec.drain_seconds,
        "connections": spec.connections,
        "keys": spec.keys_per_get,
        "closed": spec.closed_depth,
        "seed": spec.seed,
        "protocol": spec.protocol,
        "reconnect": spec.requests_per_connection,
        "sleeps": int(spec.sleeps),
    }
    command = [str(compiled("openloop")), *(f"--{name}={value}" for name, value in options.items())]
    with nullcontext() if spec.sleeps else _polling_its_own_device(lab):
        process = lab.client.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            yield RunningLoad(process, spec)
        finally:
            process.kill()
            process.communicate()


def run(lab: Lab, server: Server, spec: LoadSpec) -> LoadResult:
    """Make the load and wait for its result. Raises Unsupported without a C compiler, NapctlError if it failed."""
    with started(lab, server, spec) as load:
        return load.result()


@contextmanager
def _polling_its_own_device(lab: Lab) -> Iterator[None]:
    """Keep the client's NAPI threads away while the generator polls (Documentation/networking/napi.rst).

    The same however the server takes its packets, so comparisons stay fair.
    """
    with Netdev(lab.client.namespace) as netdev:
        before = netdev.napis()
        if any(napi.settings.gro_flush_timeout_ns is None for napi in before):
            raise Unsupported(
                "the lab's load sets deferral of its NAPI instances, which this kernel does not have (Linux 6.13)"
            )
        for napi in before:
            netdev.set_napi(napi.napi_id, POLLED)
        try:
            yield
        finally:
            for napi in before:
                netdev.set_napi(napi.napi_id, napi.settings)
