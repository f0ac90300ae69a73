"""The table of docs/latency.md: what the probe sees at the server beside what clients see, server by server.

    python -m bench.latencytable [--seconds S] [--rounds N] [SERVER …]

Server and packets run on one CPU, the load on the other. What a client waits beside the server's own latency (its own
work, the way there and back) is what its median is longer in a calm exchange under plain interrupts: with a twentieth
of the load that the server can bear, not idle, as who sleeps is slow to wake.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Literal, NamedTuple

from napctl.kernel import epoll, processes
from napctl.kernel.netdev import Netdev
from napctl.kernel.open_files import open_files
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, run, started
from napctl.lab.servers import Server, memcached
from napctl.lab.webservers import nginx, redis
from napctl.model.latency import LatencyHistogram
from napctl.model.settings import EpollParams, NapiSettings
from napctl.observe.server_latency import LatencyMeter

LOADS = (0.25, 0.6, 0.9)
"""Of what the server can bear with interrupts, by a closed loop."""
CALM = 0.05
SHARES = (0.5, 0.99)
LATE = 0.002
"""Share of requests sent late that leaves the client's p99 its own."""


@dataclass(frozen=True)
class Way:
    """How packets are taken."""

    name: str
    napi: NapiSettings
    prefer: bool = False


def _napi(timer_us: int, suspend_ms: int = 0) -> NapiSettings:
    return NapiSettings(
        defer_hard_irqs=100 if timer_us else 0,
        gro_flush_timeout_ns=timer_us * 1000,
        irq_suspend_timeout_ns=suspend_ms * 1_000_000,
    )


INTERRUPTS = Way("interrupts", _napi(0))
WAYS = (INTERRUPTS, Way("defer 200 µs", _napi(200)), Way("suspend 200 µs", _napi(200, 20), prefer=True))


@dataclass(frozen=True)
class Kind:
    """A server, and what it speaks."""

    start: Callable[[Lab], Server]
    protocol: Literal["memcached", "http", "redis"]


KINDS = {
    "memcached": Kind(memcached, "memcached"),
    "nginx": Kind(lambda lab: nginx(lab, workers=1), "http"),
    "redis": Kind(redis, "redis"),
}


class Exchange(NamedTuple):
    """Percentiles of one run, µs: the client's from when a request was due, the server's until reply and read."""

    client: dict[float, float]
    server: dict[float, float]
    read: dict[float, float]
    late: float
    """Share of requests that the generator sent late: its own delay."""


Cells = dict[str, list[Exchange]]
"""By the name of the way, round by round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("servers", nargs="*", default=list(KINDS), metavar="SERVER")
    options = parser.parse_args()
    print("| server | way | requests/s | late | client p50 | server p50 | off | client p99 | server p99 | off | read |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    found: list[Cells] = []
    for name in options.servers:
        for line in rows(name, KINDS[name], options.seconds, options.rounds, found):
            print(line, flush=True)
    for share in SHARES:
        print(order(found, share))


def rows(name: str, kind: Kind, seconds: float, rounds: int, found: list[Cells]) -> Iterator[str]:
    """A row for each way and rate, of the medians of the rounds, in which the ways take turns."""
    with Lab.build() as lab, kind.start(lab) as server:
        pids = server.workers or [server.pid]

        def at(rate: float) -> Exchange:
            return exchange(lab, server, kind, pids, rate, seconds)

        closed = LoadSpec(rate_per_second=0, seconds=1, closed_depth=8, protocol=kind.protocol)
        most = run(lab, server, closed).achieved_per_second
        calm = min((at(CALM * most) for _ in range(2 * rounds)), key=lambda each: each.client[0.5])
        beside = calm.client[0.5] - calm.server[0.5]
        told = f"{name} | most: {most:,.0f}/s; the client's side is {beside:.0f} µs"
        yield f"| {told} | {CALM * most:,.0f} | {late([calm])} | | | | | | | |"
        for load in LOADS:
            cells: Cells = {way.name: [] for way in WAYS}
            for _ in range(rounds):
                for way in WAYS:
                    with taken(lab, pids, way):
                        cells[way.name].append(at(load * most))
            found.append(cells)
            for way in WAYS:
                yield row(f"{name} | {way.name} | {load * most:,.0f}", cells[way.name], beside)


def row(begin: str, rounds: list[Exchange], beside: float) -> str:
    """The medians of the rounds in which the generator was not late, of all if it always was."""
    rounds = [each for each in rounds if each.late <= LATE] or rounds
    cells = [begin, late(rounds)]
    for share in SHARES:
        client = median(each.client[share] for each in rounds)
        server = median(each.server[share] for each in rounds) + beside
        cells.append(f"{client:.0f} | {server:.0f} | {100 * (server / client - 1):+.0f} %")
    cells.append(", ".join(f"{median(each.read[share] for each in rounds):.0f}" for share in SHARES))
    return f"| {' | '.join(cells)} |"


def late(rounds: list[Exchange]) -> str:
    return f"{100 * median(each.late for each in rounds):.1f} %"


def order(found: list[Cells], share: float) -> str:
    """How often the server's figures put two ways in the client's order, where that is the same in all rounds."""
    pairs = agree = total = 0
    for cells in found:
        for one, other in combinations(cells, 2):
            total += 1
            client, server = (
                [
                    sign(getattr(a, side)[share] - getattr(b, side)[share])
                    for a, b in zip(cells[one], cells[other], strict=True)
                ]
                for side in ("client", "server")
            )
            if len(set(client)) == 1:
                pairs += 1
                agree += sign(sum(server)) == client[0]
    told = f"p{100 * share:.0f}: of {total} pairs of ways the client tells {pairs} apart, alike in each round"
    return f"{told}; the server's figures order {agree} of these as the client's do"


def sign(number: float) -> int:
    return (number > 0) - (number < 0)


def exchange(lab: Lab, server: Server, kind: Kind, pids: list[int], rate: float, seconds: float) -> Exchange:
    """One run."""
    spec = LoadSpec(rate_per_second=rate, seconds=seconds, warmup_seconds=0.3, protocol=kind.protocol)
    with LatencyMeter(pids) as meter, started(lab, server, spec) as load:
        load.wait_for_warmup()
        meter.restart()
        result = load.result()
        found = meter.window().together
    assert found

    def us(histogram: LatencyHistogram) -> dict[float, float]:
        return {share: (histogram.percentile_ns(share) or 0) / 1000 for share in SHARES}

    client = {share: result.percentile_us(share) or 0 for share in SHARES}
    return Exchange(client, us(found.until_reply), us(found.until_read), result.late_share)


@contextmanager
def taken(lab: Lab, pids: list[int], way: Way) -> Iterator[None]:
    """Let the server's packets be taken that way."""
    _set(lab, pids, way)
    try:
        yield
    finally:
        _set(lab, pids, INTERRUPTS)


def _set(lab: Lab, pids: list[int], way: Way) -> None:
    params = EpollParams(busy_poll_usecs=0, busy_poll_budget=64, prefer_busy_poll=way.prefer)
    for pid in pids:
        with processes.Handle(pid) as handle:
            for fd in open_files(pid).epolls:
                with handle.copy_of(fd) as copy:
                    epoll.set_params(copy, params)
    with Netdev(lab.server.namespace) as netdev:
        for napi in lab.server.napis():
            netdev.set_napi(napi.napi_id, way.napi)


if __name__ == "__main__":
    main()
