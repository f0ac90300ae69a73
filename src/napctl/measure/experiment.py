"""An experiment in the lab: treatments × loads, in interleaved rounds, on one unmodified server."""

import random
import time
from collections.abc import Callable, Iterator

from napctl.change.journal import Journal
from napctl.kernel import processes, system
from napctl.kernel.cputime import run_seconds
from napctl.kernel.processes import Process
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server
from napctl.measure.summary import Cell
from napctl.measure.treatment import Treatment, applied
from napctl.model.errors import NapctlError
from napctl.model.value import Value
from napctl.model.window import Window, own_polls
from napctl.observe.window import Observer

CONNECTIONS = 16
KEYS_PER_GET = 10
"""Enough work per request that the server saturates long before the load generator does."""
VALUE_BYTES = 8
WARMUP_SECONDS = 0.8
"""Time between the first request of a cell and its measurement; the treatment is applied in its first half."""


FEW_POLLS = 200
"""Below this number of polls in a cell a share of them says nothing."""
REPEATS = 8
"""Cells of one experiment that may be measured again; on a quiet machine none is."""


class LoadLevel(Value, frozen=True, kw_only=True):
    """A load by name."""

    name: str
    rate_per_second: float


class Bench:
    """The lab with its server, ready for cells. Nothing of it outlives the lab."""

    def __init__(self, lab: Lab, server: Server, journal: Journal, observer: Observer):
        self._lab, self._server, self._journal, self._observer = lab, server, journal, observer
        process = processes.process(server.pid)
        if process is None:
            raise NapctlError("the server ended at its start")
        self.process: Process = process

    def saturating_rate(self, treatment: Treatment, seconds: float) -> float:
        """Requests per second that the server answers when each connection always has some outstanding."""
        spec = LoadSpec(
            rate_per_second=0,
            seconds=seconds,
            warmup_seconds=WARMUP_SECONDS,
            closed_depth=8,
            connections=CONNECTIONS,
            keys_per_get=KEYS_PER_GET,
        )
        with started(self._lab, self._server, spec) as load:
            self._wait_for_connections()
            with applied(treatment, self.process, self._journal):
                return load.result().achieved_per_second

    def cell(self, treatment: Treatment, level: LoadLevel, number: int, seconds: float) -> Cell:
        """One treatment under one load: connect, apply, warm up, measure, restore."""
        spec = LoadSpec(
            rate_per_second=level.rate_per_second,
            seconds=seconds,
            warmup_seconds=WARMUP_SECONDS,
            connections=CONNECTIONS,
            keys_per_get=KEYS_PER_GET,
            seed=number,
        )
        with started(self._lab, self._server, spec) as load:
            self._wait_for_connections()
            with applied(treatment, self.process, self._journal):
                load.wait_for_warmup()
                self._observer.restart()
                before = self._cpu_seconds()
                time.sleep(seconds)
                window = self._observer.window()
                cpu_share = (self._cpu_seconds() - before) / window.seconds
                result = load.result()
        return Cell(
            treatment=treatment.name,
            load=level.name,
            round=number,
            asked_per_second=level.rate_per_second,
            requests_per_second=result.achieved_per_second,
            p50_us=result.p50_us,
            p99_us=result.p99_us,
            server_cpu_share=cpu_share,
            cpu_us_per_request=cpu_share * 1e6 / result.achieved_per_second if result.answered else None,
            net_rx_softirqs_per_second=window.total_per_second("net_rx_softirqs"),
            kernel_polls_per_second=_kernel_polls(window),
            server_poll_share=_share(window, self.process.pid),
            generator_busy_share=result.busy_share,
            generator_late_share=result.late_share,
        )

    def _cpu_seconds(self) -> float:
        """CPU time of the server and of its device's NAPI threads."""
        pollers = [napi.thread_pid for device in self._observer.devices for napi in device.napis if napi.thread_pid]
        return sum(run_seconds(pid) for pid in (self.process.pid, *pollers))

    def _wait_for_connections(self) -> None:
        """Until the server has all connections: attaching finds the NAPI instances by them."""
        deadline = time.monotonic() + WARMUP_SECONDS
        while time.monotonic() < deadline:
            fds = processes.epoll_fds(self.process.pid)
            with processes.Handle(self.process.pid) as handle:
                found = [handle.incoming_napi_ids(processes.watched_fds(self.process.pid, fd)) for fd in fds]
            if sum(sum(each.values()) for each in found) >= CONNECTIONS:
                return
            time.sleep(0.005)
        raise NapctlError("the load generator's connections did not reach the server")


def schedule(
    treatments: list[Treatment], levels: list[LoadLevel], rounds: int, seed: int
) -> Iterator[tuple[int, LoadLevel, Treatment]]:
    """Every treatment under every load in every round; the order within a round is random, from the seed."""
    order = random.Random(seed)  # noqa: S311 - an order, not a secret
    for number in range(1, rounds + 1):
        cells = [(number, level, treatment) for level in levels for treatment in treatments]
        order.shuffle(cells)
        yield from cells


def experiment(
    bench: Bench,
    treatments: list[Treatment],
    levels: list[LoadLevel],
    *,
    rounds: int,
    seconds: float,
    seed: int,
    progress: Callable[[str], None],
) -> list[Cell]:
    """Run the whole schedule. `progress` is told before each cell what is about to run.

    A cell whose load generator was late is measured again, whatever the treatment, `REPEATS` times in all: its
    latencies would be partly the generator's.
    """
    cells = []
    repeats = REPEATS
    for number, level, treatment in schedule(treatments, levels, rounds, seed):
        progress(f"round {number} of {rounds}: {treatment.name}, {level.name}")
        cell = bench.cell(treatment, level, number, seconds)
        while cell.doubtful and repeats:
            repeats -= 1
            cell = bench.cell(treatment, level, number, seconds)
        cells.append(cell)
    return cells


def _kernel_polls(window: Window) -> float | None:
    if window.source != "bpf":
        return None
    polls = sum(part.polls for napi in window.napis if napi.settings for part in (napi.softirq, napi.thread) if part)
    return polls / window.seconds


def _share(window: Window, pid: int) -> float | None:
    ours = [napi for napi in window.napis if napi.settings]
    polls = sum(napi.polls.polls for napi in ours)
    told = window.source == "bpf" and polls >= FEW_POLLS and system.in_initial_pid_namespace()
    return own_polls(ours, pid).polls / polls if told else None
