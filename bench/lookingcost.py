"""Cost of looking at each request, whatever is done with it: CPU time that a saturated server takes for one."""

import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from math import log, sqrt
from statistics import fmean, stdev

from bench.probecost import compiled
from napctl.kernel.cpu_time import clock_seconds
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server, memcached
from napctl.load.lab import CLOSED_DEPTH
from napctl.probe.latency import LatencyProbe

ROUNDS = 12
SECONDS, SETTLE_SECONDS = 0.6, 0.15


def run() -> None:
    """Print it: the empty programs' part of it, and the probe's. What takes turns is measured within each second, so
    what else the machine does is the same for all."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab.build())
        server = stack.enter_context(memcached(lab))
        empty = compiled("looked")
        stack.callback(empty.close)
        empty.load()
        probe = stack.enter_context(LatencyProbe.load([server.pid]))
        probe.pause()
        ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "nothing": (lambda: None, lambda: None),
            "empty programs": (empty.attach, empty.detach),
            "latency": (probe.resume, probe.pause),
        }
        seconds = ROUNDS * len(ways) * (SECONDS + 2 * SETTLE_SECONDS) + 10
        load = stack.enter_context(
            started(lab, server, LoadSpec(rate_per_second=0, closed_depth=CLOSED_DEPTH, seconds=seconds))
        )
        load.wait_for_warmup()
        answered = stack.enter_context(Answered(lab, server))
        rounds = [_round(ways, answered) for _ in range(ROUNDS)]
        load.stop()
    print(f"CPU time of a saturated memcached and its NAPI thread for each request, {ROUNDS} rounds")
    for name in ways:
        changes = [100 * log(one[name] / one["nothing"]) for one in rounds]
        error = stdev(changes) / sqrt(ROUNDS)
        took = 1e6 * fmean(one[name] for one in rounds)
        print(f"  {name:<16} {took:.2f} µs, {fmean(changes):+.1f} % (standard error {error:.1f})", flush=True)


class Answered:
    """How many requests a memcached has answered, by its own count, and what it ran for that. A context manager."""

    def __init__(self, lab: Lab, server: Server):
        self._pids = [server.pid, *(napi.thread_pid for napi in lab.server.napis() if napi.thread_pid)]
        with lab.client.namespace.entered():
            self._socket = socket.create_connection((server.address, server.port))

    def __enter__(self) -> "Answered":
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def now(self) -> tuple[int, float]:
        """Until now: requests, and seconds."""
        self._socket.sendall(b"stats\r\n")
        told = b""
        while not told.endswith(b"END\r\n"):
            told += self._socket.recv(65536)
        return int(told.split(b"STAT cmd_get ")[1].split()[0]), sum(map(clock_seconds, self._pids))


def _round(ways: dict[str, tuple[Callable[[], None], Callable[[], None]]], answered: Answered) -> dict[str, float]:
    found = {}
    for name, (begin, end) in random.sample(sorted(ways.items(), key=lambda each: each[0]), len(ways)):
        begin()
        time.sleep(SETTLE_SECONDS)
        requests, ran = answered.now()
        time.sleep(SECONDS)
        more_requests, ran_on = answered.now()
        end()
        found[name] = (ran_on - ran) / (more_requests - requests)
    return found
