"""Cost of the latency probe: its part of the CPU time of a server and its NAPI threads, less an empty program's."""

import ctypes
import mmap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from bench.probecost import compiled, floor, statistics, totals
from napctl.kernel.cpu_time import clock_seconds
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server, memcached
from napctl.probe import Probe
from napctl.probe.latency import LatencyProbe

RATES = (1_000.0, 5_000.0, 20_000.0, 60_000.0, 100_000.0)
SECONDS = 1.5
TRACEPOINTS = ("napi_poll", "sk_data_ready", "sock_recv_length", "sock_send_length")
PROGRAMS = dict(zip(("on_napi_poll", "on_data_ready", "on_recv", "on_send"), TRACEPOINTS, strict=True))
EMPTY = {name: "nothing" if name == "napi_poll" else f"nothing_{name}" for name in TRACEPOINTS}
"""The empty program on the same tracepoint."""


class Cost(NamedTuple):
    """Of one program on its tracepoint."""

    seconds: float
    """CPU time that it takes of the server's CPU, per second."""
    price: float
    """ns of each event there, above the empty program."""
    events: float
    """Per second, on the server's CPU."""


def run() -> None:
    """Print it for a memcached with interrupts under some loads.

    Most events are the generator's, which polls without pause on the other CPU, and the kernel tells one sum of a
    program's run time. So there is a second probe on the same events that wants nobody: both cost the same there.
    """
    print(
        "cost of the latency probe: share of the server's and NAPI threads' CPU time (aim: 1 %), less an empty program"
    )
    print("and the generator's events; beside it the probe of polls; ns × events per second")
    with Lab.build() as lab, memcached(lab) as server:
        plain = {rate: _cpu_share(lab, server, rate) for rate in RATES}
        with (
            statistics(),
            floor() as empty,
            _events() as count,
            LatencyProbe.load([]) as nobody,
            LatencyProbe.load([server.pid]) as probe,
            Probe.load() as polls,
        ):
            for rate in RATES:
                with _loaded(lab, server, rate):
                    probe.read()  # it chooses how many requests it looks at
                    fds = (probe.prog_fds(), nobody.prog_fds(), empty, {"polls": polls.prog_fds()["on_napi_poll"]})
                    before, there, began = [_totals(each) for each in fds], count(lab.server.cpu), time.monotonic()
                    time.sleep(SECONDS)
                    after, now, seconds = (
                        [_totals(each) for each in fds],
                        count(lab.server.cpu),
                        time.monotonic() - began,
                    )
                events = {name: (now[name] - there[name]) / seconds for name in now}
                ours, rejecting, nothing, polling = map(_prices, before, after)
                costs = {}
                for program, name in PROGRAMS.items():
                    runs = (after[0][program][1] - before[0][program][1]) / seconds
                    least = rejecting[program] - nothing[EMPTY[name]]
                    spent = (ours[program] - rejecting[program]) * runs + least * events[name]
                    costs[program] = Cost(spent / 1e9, spent / max(1.0, events[name]), events[name])
                share = sum(each.seconds for each in costs.values()) / plain[rate]
                others = (polling["polls"] - nothing["nothing"]) * events["napi_poll"] / 1e9 / plain[rate]
                told = ", ".join(
                    f"{program.removeprefix('on_')} {each.price:.0f} × {each.events:,.0f}"
                    for program, each in costs.items()
                )
                shares = f"{100 * share:.2f} %; polls {100 * others:.2f} %"
                print(f"  {rate:>9,.0f}/s, one in {probe.gap:>3}: {shares} ({told})", flush=True)


def _totals(fds: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    return {name: totals(fd) for name, fd in fds.items()}


def _prices(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """ns of each run."""
    return {name: (after[name][0] - ns) / max(1, after[name][1] - runs) for name, (ns, runs) in before.items()}


def _cpu_share(lab: Lab, server: Server, rate: float) -> float:
    """CPU seconds of server and NAPI threads per second, without a probe."""
    with _loaded(lab, server, rate):
        ran, began = _ran(lab, server), time.monotonic()
        time.sleep(SECONDS)
        return (_ran(lab, server) - ran) / (time.monotonic() - began)


@contextmanager
def _loaded(lab: Lab, server: Server, rate: float) -> Iterator[None]:
    spec = LoadSpec(rate_per_second=rate, seconds=SECONDS + 1, warmup_seconds=0.8)
    with started(lab, server, spec) as load:
        load.wait_for_warmup()
        yield
        load.stop()


def _ran(lab: Lab, server: Server) -> float:
    threads = [napi.thread_pid for napi in lab.server.napis() if napi.thread_pid]
    return sum(clock_seconds(pid) for pid in (server.pid, *threads))


@contextmanager
def _events() -> Iterator[Callable[[int], dict[str, int]]]:
    """A function that tells how many events of each tracepoint a CPU has had."""
    program = compiled("events")
    try:
        program.load()
        program.attach()
        fd, size = program.map_fd(".bss")
        with mmap.mmap(fd, size) as memory:
            table = ctypes.c_uint64 * 64 * len(TRACEPOINTS)
            yield lambda cpu: {
                name: row[cpu] for name, row in zip(TRACEPOINTS, table.from_buffer_copy(memory), strict=True)
            }
    finally:
        program.close()
