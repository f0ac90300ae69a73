"""Cells for any server of the lab: one way of taking packets under one load, attached through the product."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Literal

from napctl.attach.activity import Meter
from napctl.attach.attach_options import AttachOptions
from napctl.attach.attach_target import attach_target
from napctl.attach.attachment import attachment, detach
from napctl.attach.judge_target import judge_target
from napctl.attach.target import parse, resolve
from napctl.change.journal import Journal
from napctl.change.transaction import apply
from napctl.kernel import processes
from napctl.kernel.cpu_time import run_seconds
from napctl.kernel.epoll_instances import epoll_instances
from napctl.kernel.open_files import open_files
from napctl.kernel.sockets import incoming_napi_id
from napctl.lab.bed import Lab
from napctl.lab.load import LoadResult, LoadSpec, started
from napctl.lab.servers import Server, connected, serve
from napctl.load.lab import KEYS_PER_GET
from napctl.model.activity import Now
from napctl.model.change import Transaction
from napctl.model.suspension import Suspension
from napctl.observe.window import Observer
from tests.lab.helpers import until
from tests.lab.other_servers import ROOT
from tests.lab.rounds import Cell

Protocol = Literal["memcached", "http", "redis"]
Treatment = Literal["interrupts", "deferral", "suspension"]
TREATMENTS: tuple[Treatment, ...] = ("interrupts", "deferral", "suspension")

DEFERRAL = Suspension(irq_suspend_timeout_ns=0, busy_poll_budget=0, prefer_busy_poll=False)
OPTIONS = AttachOptions(suspension=Suspension(), timer_ns=200_000, steer=True)
CONNECTIONS = 32
"""Eight for each of four workers, more or less: the kernel spreads them by a hash."""
WARMUP_SECONDS = 1.2
"""Attaching looks at the threads for 0.25 s; all of it is over by then."""
REPEATS = 8
"""Cells of one bench that may be measured again because the generator was late; on a quiet machine none is."""
LATE_SHARE = 0.01
"""As tests.lab.rounds.Cell.doubtful has it."""
REQUEST = {
    "http": b"GET /key0 HTTP/1.1\r\nHost: lab\r\n\r\n",
    "memcached": b"get key0\r\n",
    "redis": b"*2\r\n$3\r\nGET\r\n$4\r\nkey0\r\n",
}
PLAIN_PORT = 8084


def plain(lab: Lab, *, spin: bool = False, suspend: bool = False) -> Server:
    """services/plain.py: one process on epoll itself. `spin`: only with timeout 0; `suspend`: calls EPIOCSPARAMS."""
    options = [*(["--spin"] if spin else []), *(["--suspend"] if suspend else [])]
    module = [sys.executable, "-m", "tests.lab.services.plain"]
    command = ["env", f"PYTHONPATH={ROOT}", *module, lab.server.address, str(PLAIN_PORT), *options]
    return serve(lab, command, PLAIN_PORT, patience_s=60)


@contextmanager
def held(lab: Lab, server: Server, protocol: Protocol, count: int = 1) -> Iterator[None]:
    """Connections that have had one answer each, and stay open until the block is left."""
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(connected(lab, server.port))
            connection.sendall(REQUEST[protocol])
            assert connection.recv(4096)
        yield


def fed_by(pids: list[int]) -> list[dict[int, int]]:
    """Of each epoll instance of these processes that NAPI instances feed: sockets by NAPI id."""
    found: list[dict[int, int]] = []
    for pid in pids:
        with processes.Handle(pid) as handle:
            instances = epoll_instances(handle, open_files(pid), incoming_napi_id)
            found += [dict(Counter(napi_id for napi_id in each.told.values() if napi_id)) for each in instances]
    return [each for each in found if each]


def cell_of(name: str, spec: LoadSpec, result: LoadResult, cpu_seconds: float, own_share: float | None) -> Cell:
    """What was measured, as the summaries of napctl.measure take it; the seed is its round."""
    return Cell(
        treatment=name,
        load="open loop" if spec.rate_per_second else "closed loop",
        round=spec.seed,
        asked_per_second=spec.rate_per_second,
        requests_per_second=result.achieved_per_second,
        p50_us=result.p50_us,
        p99_us=result.p99_us,
        server_cpu_share=cpu_seconds / spec.seconds,
        cpu_us_per_request=cpu_seconds * 1e6 / result.answered if result.answered else None,
        net_rx_softirqs_per_second=None,
        kernel_polls_per_second=None,
        server_poll_share=own_share,
        generator_busy_share=result.busy_share,
        generator_late_share=result.late_share,
    )


@dataclass
class Bench:
    """A lab with its server, ready for cells."""

    lab: Lab
    server: Server
    protocol: Protocol
    journal: Journal
    steered: bool = False
    """Its workers are steered, and so must be attached before the connections come that are to be."""
    repeats: int = REPEATS
    metered: bool = True
    """Whether the probes count who polls; else a cell has no such share, and its verdict is "not measured"."""

    def spec(
        self, rate_per_second: float, seconds: float, seed: int, *, connections: int = CONNECTIONS, depth: int = 1
    ) -> LoadSpec:
        """An open loop of that rate; 0: a closed loop, with `depth` requests outstanding on each connection."""
        return LoadSpec(
            rate_per_second=rate_per_second,
            seconds=seconds,
            warmup_seconds=WARMUP_SECONDS,
            connections=connections,
            closed_depth=0 if rate_per_second else depth,
            keys_per_get=KEYS_PER_GET if self.protocol == "memcached" else 1,
            seed=seed,
            protocol=self.protocol,
        )

    def saturating_rate(self) -> float:
        """Requests per second that it answers with interrupts when it has always something to do: the median of three.

        One request at a time on each connection: several at once would cost it less than clients' do.
        """
        return median(self.cell("interrupts", self.spec(0, 1, seed))[0].requests_per_second for seed in (1, 2, 3))

    def cell(self, treatment: Treatment, spec: LoadSpec) -> tuple[Cell, Now]:
        """Connect, attach, warm up, measure, detach; again, while that is allowed, if the generator was late."""
        while True:
            cell, now = self._cell(treatment, spec)
            if cell.generator_late_share <= LATE_SHARE or not self.repeats:
                return cell, now
            self.repeats -= 1

    def _cell(self, treatment: Treatment, spec: LoadSpec) -> tuple[Cell, Now]:
        attached = treatment != "interrupts"
        with ExitStack() as stack:
            transactions: list[Transaction] = []
            if attached and self.steered:
                with held(self.lab, self.server, self.protocol):
                    transactions.append(stack.enter_context(self.attached(treatment)))
            load = stack.enter_context(started(self.lab, self.server, spec))
            if attached and not self.steered:
                self.wait_for_connections(spec.connections)
                transactions.append(stack.enter_context(self.attached(treatment)))
            # Loading the probes takes a CPU for some milliseconds, and so does reading: not while it is measured.
            meter = stack.enter_context(Meter(transactions, latency=False)) if self.metered else None
            if meter and not transactions:
                stack.enter_context(Observer(self.lab.server.namespace))  # it costs something: the same in all cells
            load.wait_for_warmup()
            if meter:
                meter.restart()
            before = self.cpu_seconds()
            result = load.result()
            used = self.cpu_seconds() - before
            readings = meter.read() if meter else []
            now = readings[0][0] if readings else Now(verdict="not measured")
        return cell_of(treatment, spec, result, used, now.server_poll_share), now

    @contextmanager
    def attached(self, treatment: Treatment) -> Iterator[Transaction]:
        """Suspension as the product attaches it; deferral as the same on the device, and nothing in the server."""
        found = resolve(parse(str(self.server.pid)))
        target = judge_target("server", found, OPTIONS)
        if treatment == "suspension":
            made = attach_target(self.journal, target, OPTIONS, lambda _: None).transaction
        else:
            assert not target.choice.empty
            made = apply(self.journal, attachment(self.journal, target, DEFERRAL), then="attached")
        try:
            yield made
        finally:
            detach(self.journal, [each for each in self.journal.live() if each.number == made.number])

    def cpu_seconds(self) -> float:
        """CPU time of the server's processes and of its device's NAPI threads."""
        threads = [napi.thread_pid for napi in self.lab.server.napis() if napi.thread_pid]
        return sum(run_seconds(pid) for pid in (self.server.pid, *self.server.workers, *threads))

    def wait_for_connections(self, connections: int = CONNECTIONS) -> None:
        """Until the server has the load's connections, all answered once: attaching finds NAPI instances by them."""

        def fed() -> int:
            return sum(sum(each.values()) for each in fed_by([self.server.pid, *self.server.workers]))

        until(lambda: fed() >= connections, "the connections of the load")
