"""Cost of napctl's probes: their part of the CPU time of a server and its NAPI threads, less an empty program's."""

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
from napctl.load.lab import CLOSED_DEPTH
from napctl.load.process import load_name
from napctl.probe import Probe
from napctl.probe.latency import LatencyProbe
from napctl.probe.softirq_parts import SoftirqPartsProbe
from napctl.probe.softirq_time import SoftirqTimeProbe
from napctl.probe.suspension import SuspensionProbe

MOST = 0.0
"""As many as it can answer."""
RATES = (1_000.0, 5_000.0, 20_000.0, 60_000.0, 100_000.0, MOST)
SECONDS = 1.5
TRACEPOINTS = (
    "napi_poll", "sk_data_ready", "sock_recv_length", "sock_send_length", "softirq_entry", "softirq_exit",
    "hrtimer_start", "hrtimer_expire_entry", "irq_handler_entry", "irq_handler_exit",
)  # fmt: skip
"""In the order of events.bpf.c."""
LISTENS = {
    "on_data_ready": "sk_data_ready", "on_recv": "sock_recv_length", "on_send": "sock_send_length",
    "on_timer_start": "hrtimer_start", "on_timer_expiry": "hrtimer_expire_entry",
    "on_interrupt_entry": "irq_handler_entry", "on_interrupt_exit": "irq_handler_exit",
}  # fmt: skip
"""Programs that are not named after their tracepoint."""
EMPTY = {name: "nothing" if name == "napi_poll" else f"nothing_{name}" for name in TRACEPOINTS}
"""The empty program on the same tracepoint."""
ADAPTING = ("latency", "suspension", "softirq_time")
"""Probes that run all the time while napctl adapts."""


class Cost(NamedTuple):
    """Of one program on its tracepoint."""

    seconds: float
    """CPU time that it takes of the server's CPU, per second."""
    price: float
    """ns of each event there, above the empty program."""
    events: float
    """Per second, on the server's CPU."""

    @classmethod
    def of(cls, spent_ns: float, events: float) -> "Cost":
        """From what it took in a second."""
        return cls(spent_ns / 1e9, spent_ns / max(1.0, events), events)


def run() -> None:
    """Print it for a memcached with interrupts under some loads.

    Most events are the generator's, which polls without pause on the other CPU, and the kernel tells one sum of a
    program's run time. So before and after the latency probe there is another one on the same events that wants nobody:
    they cost the same there. Of the others an event costs the same on both CPUs, as nobody is chosen.
    """
    print("cost of napctl's probes on a memcached: share of its and the NAPI threads' CPU time, less an empty program")
    print("(aim: 1 % for all that run while it adapts: latency, suspension, softirq_time); ns × events per second")
    with Lab.build() as lab, memcached(lab) as server:
        plain = {rate: _cpu_share(lab, server, rate) for rate in RATES}
        with (
            statistics(),
            floor() as empty,
            _events() as count,
            LatencyProbe.load([]) as nobody,
            LatencyProbe.load([server.pid]) as latency,
            LatencyProbe.load([]) as nobody_else,
            SuspensionProbe.load() as suspension,
            SoftirqTimeProbe.load([server.pid]) as softirq_time,
            SoftirqPartsProbe.load([([napi.napi_id for napi in lab.server.napis()], [server.pid])]) as softirq_parts,
            Probe.load() as polls,
        ):
            fds = {"latency": latency.prog_fds(), "empty": empty}
            fds |= {"nobody": nobody.prog_fds(), "nobody_else": nobody_else.prog_fds()}
            fds |= {"suspension": suspension.prog_fds(), "softirq_time": softirq_time.prog_fds()}
            fds |= {"softirq_parts": softirq_parts.prog_fds(), "polls": polls.prog_fds()}
            for rate in RATES:
                with _loaded(lab, server, rate):
                    latency.read()  # it chooses how many requests it looks at
                    before, there, began = _all_totals(fds), count(lab.server.cpu), time.monotonic()
                    time.sleep(SECONDS)
                    after, now, seconds = _all_totals(fds), count(lab.server.cpu), time.monotonic() - began
                events = {name: (now[name] - there[name]) / seconds for name in now}
                _tell(rate, plain[rate], _costs(before, after, events, seconds), latency.gap)


Totals = Mapping[str, Mapping[str, tuple[int, int]]]
"""By probe and program: ns and runs."""


def _costs(before: Totals, after: Totals, events: Mapping[str, float], seconds: float) -> dict[str, dict[str, Cost]]:
    """By probe and program."""
    prices = {probe: _prices(before[probe], after[probe]) for probe in after}
    least = {name: prices["empty"][EMPTY[name]] for name in TRACEPOINTS}
    costs: dict[str, dict[str, Cost]] = {"latency": {}}
    for program, ours in prices["latency"].items():
        name = _tracepoint(program)
        rejecting = (prices["nobody"][program] + prices["nobody_else"][program]) / 2
        runs = (after["latency"][program][1] - before["latency"][program][1]) / seconds
        spent = (ours - rejecting) * runs + (rejecting - least[name]) * events[name]
        costs["latency"][program] = Cost.of(spent, events[name])
    for probe in ("suspension", "softirq_time", "softirq_parts", "polls"):
        costs[probe] = {
            program: Cost.of((price - least[name]) * events[name], events[name])
            for program, price in prices[probe].items()
            for name in (_tracepoint(program),)
        }
    return costs


def _tell(rate: float, cpus: float, costs: Mapping[str, Mapping[str, Cost]], gap: int) -> None:
    shares = {probe: 100 * sum(each.seconds for each in found.values()) / cpus for probe, found in costs.items()}
    print(
        f"  {load_name(rate):>11} ({100 * cpus:.0f} % of a CPU): {sum(shares[probe] for probe in ADAPTING):.2f} %; "
        f"where it decides for groups, softirq_parts {shares['softirq_parts']:.2f} % more; "
        f"watched, polls {shares['polls']:.2f} % more",
        flush=True,
    )
    for probe in ADAPTING:
        told = ", ".join(
            f"{program.removeprefix('on_')} {each.price:.0f} × {each.events:,.0f}"
            for program, each in costs[probe].items()
        )
        one_in = f", one in {gap}" if probe == "latency" else ""
        print(f"      {probe}{one_in} {shares[probe]:.2f} % ({told})", flush=True)


def _tracepoint(program: str) -> str:
    return LISTENS.get(program, program.removeprefix("on_"))


def _all_totals(fds: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, tuple[int, int]]]:
    return {probe: _totals(each) for probe, each in fds.items()}


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
    depth = 0 if rate else CLOSED_DEPTH
    spec = LoadSpec(rate_per_second=rate, closed_depth=depth, seconds=SECONDS + 1, warmup_seconds=0.8)
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
