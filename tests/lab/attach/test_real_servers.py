"""What attach promises, on real and unmodified servers; the long form writes the table of docs/servers.md."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from msgspec.structs import replace

from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.load import started
from napctl.lab.servers import Server, memcached
from napctl.lab.webservers import haproxy, nginx, redis
from napctl.model.settings import EpollParams
from napctl.model.value import to_json
from tests.lab import servertable
from tests.lab.helpers import Napctl, Ran, machine_of, params_of
from tests.lab.other_servers import caddy, web
from tests.lab.rounds import Cell
from tests.lab.trial import CONNECTIONS, TREATMENTS, Bench, Protocol, held

pytestmark = [pytest.mark.lab, pytest.mark.alone]

Outcome = Literal["attached", "with `--steer`", "left alone"]
LOAD = 0.7
"""Of what saturates it with interrupts, in the same run."""
OWN = 0.9
WINDOWS, WINDOW_SECONDS = 6, 0.5
ALL_WORKERS, ONE_WORKER = (CONNECTIONS, 4), (1, 32)
"""Closed loops: connections, and requests outstanding on each. Four workers take turns on the lab's one CPU. While one
that had run out of work waits for its turn, the deferral timer polls; on a CPU of its own it would do that itself."""
BACKLOG_US = 5000
"""A p50 beyond this is that of a queue which grows."""
LATENCIES = ("p50_us", "p99_us")
WORSE = 1.1
MOST_ROUNDS = 3
"""Times the rounds asked for, if one treatment seems to be worse than the other: with few, chance does that."""


@dataclass(frozen=True)
class Case:
    """One server, and what attach is to say of it."""

    start: Callable[[Lab], Server]
    protocol: Protocol
    outcome: Outcome
    queues: int = 4
    why: str = ""
    """Words of the reason, and of what would help."""


ONE_LOOP, GO = "it has one event loop: let one queue carry", "the Go runtime has one epoll instance"
STEER = "`--steer` would give each worker one queue"

CASES: dict[str, Case] = {
    "nginx, 1 worker": Case(lambda lab: nginx(lab, workers=1), "http", "attached", 1),
    "memcached -t 1": Case(memcached, "memcached", "attached", 1),
    "redis": Case(redis, "redis", "attached", 1),
    "nginx, 4 workers, reuseport": Case(lambda lab: nginx(lab, reuseport=True), "http", "with `--steer`", why=STEER),
    "nginx, 4 workers": Case(nginx, "http", "left alone", why="`reuseport` on each `listen` line"),
    "memcached -t 4 -N 4": Case(lambda lab: memcached(lab, threads=4, napi_ids=4), "memcached", "attached"),
    "memcached -t 4": Case(lambda lab: memcached(lab, threads=4), "memcached", "left alone", why="-t 4 -N 4"),
    "haproxy, 4 threads, shards": Case(lambda lab: haproxy(lab, shards=True), "http", "with `--steer`", why=STEER),
    "asyncio, 4 workers, reuse_port": Case(lambda lab: web(lab, workers=4), "http", "with `--steer`", why=STEER),
    "uvloop, 4 workers, reuse_port": Case(
        lambda lab: web(lab, uvloop=True, workers=4), "http", "with `--steer`", why=STEER
    ),
    "redis, 4 queues": Case(redis, "redis", "left alone", why=ONE_LOOP),
    "asyncio, 1 worker": Case(web, "http", "left alone", why=ONE_LOOP),
    "uvloop, 1 worker": Case(lambda lab: web(lab, uvloop=True), "http", "left alone", why=ONE_LOOP),
    "caddy (Go)": Case(caddy, "http", "left alone", why=GO),
}
SHORT = ("memcached -t 1", "nginx, 4 workers, reuseport")
"""Of these that fit one is tried in `make test`; some of those that are left alone, too, in test_left_alone.py."""


@contextmanager
def bench_of(case: Case, directory: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab.build(queues=case.queues))
        server = stack.enter_context(case.start(lab))
        journal = stack.enter_context(Journal(Path(stack.enter_context(TemporaryDirectory(dir=directory)))))
        yield Bench(lab, server, case.protocol, journal, steered=case.outcome == "with `--steer`")


def state_of(bench: Bench) -> tuple[bytes, dict[int, dict[int, EpollParams]]]:
    """Everything that attaching could change, as bytes, and the parameters of all of the server's epoll instances."""
    pids = (bench.server.pid, *bench.server.workers)
    return to_json(machine_of(bench.lab.server)), {pid: params_of(pid) for pid in pids}


def said(bench: Bench, napctl: Napctl, *options: object) -> Ran:
    return napctl("attach", bench.server.pid, "--defer-us", 200, "--window", 0, *options)


def plain_words(told: str) -> str:
    """A refusal without what differs from run to run."""
    words = re.sub(r"^napctl: .*? \(\d+\)( and \d+ more)?: ", "", told.strip()).removesuffix("; nothing was changed")
    words = re.sub(r"epoll instance \d+", "an epoll instance", words)
    words = re.sub(r" of \w+ \(\d+\), which", ", which", words)
    return re.sub(r" \((\d+ of NAPI \d+(, )?)+\)| \(and \d+ more like it\)", "", words)


def check_verdict(case: Case, bench: Bench, napctl: Napctl) -> str:
    """Attach says what it is to say, and what it does not attach it leaves as it was. Returns the reason."""
    with started(bench.lab, bench.server, replace(bench.spec(2000, 100, 1), sleeps=True)):
        bench.wait_for_connections()
        before = state_of(bench)
        told = said(bench, napctl)
        if case.outcome == "attached":
            assert told.status == 0, told
            assert state_of(bench) != before
            assert napctl("detach", bench.server.pid).status == 0
        else:
            assert told.failed_with(3, "nothing was changed", case.why)
        assert state_of(bench) == before
        if case.outcome == "left alone":
            assert said(bench, napctl, "--steer").failed_with(3, "nothing was changed", case.why)
            assert state_of(bench) == before
    if case.outcome == "with `--steer`":
        check_steering(bench, napctl)
    return "" if case.outcome == "attached" else plain_words(told.stderr)


def check_steering(bench: Bench, napctl: Napctl) -> None:
    with held(bench.lab, bench.server, bench.protocol):
        before = state_of(bench)
        told = said(bench, napctl, "--steer")
        assert told.status == 0, told
        assert napctl("detach", bench.server.pid).status == 0
        assert state_of(bench) == before


def own_share(bench: Bench, connections: int, depth: int) -> float:
    """At saturation: the best of a few windows."""
    best = 0.0
    for number in range(1, WINDOWS + 1):
        spec = bench.spec(0, WINDOW_SECONDS, number, connections=connections, depth=depth)
        best = max(best, bench.cell("suspension", spec)[1].server_poll_share or 0)
        if best >= OWN:
            break
    return best


def heavy_rate(bench: Bench) -> float:
    """Requests per second, LOAD of what saturates it with interrupts; less if it cannot keep up with that.

    In a closed loop several requests are there at once, which costs less of each than in an open one.
    """
    rate = LOAD * bench.saturating_rate()
    for _ in range(3):
        cell, _ = bench.cell("interrupts", bench.spec(rate, 1, 1))
        if (cell.p50_us or 0) <= BACKLOG_US:
            break
        rate *= LOAD
    return rate


def rounds_of(bench: Bench, rate: float, rounds: int) -> tuple[Cell, ...]:
    """All treatments in every round, the order turned by one each time; more rounds while suspension seems worse."""
    cells: list[Cell] = []
    for number in range(1, MOST_ROUNDS * rounds + 1):
        turn = number % len(TREATMENTS)
        order = (*TREATMENTS[turn:], *TREATMENTS[:turn])
        cells += (bench.cell(treatment, bench.spec(rate, 1, number))[0] for treatment in order)
        if number % rounds == 0 and not any(is_worse(cells, metric) for metric in LATENCIES):
            break
    return tuple(cells)


def is_worse(cells: list[Cell], metric: str) -> bool:
    """All rounds of suspension lie above all of deferral, and its median more than 10 % above the other."""
    mine, other = (
        sorted(getattr(cell, metric) for cell in cells if cell.treatment == each) for each in ("suspension", "deferral")
    )
    return bool(mine[0] > other[-1] and mine[len(mine) // 2] > WORSE * other[len(other) // 2])


def examine(name: str, case: Case, directory: Path, napctl: Napctl, rounds: int) -> servertable.Row:
    """Everything about one server."""
    with bench_of(case, directory) as bench:
        why = check_verdict(case, bench, napctl)
        if case.outcome == "left alone":
            return servertable.Row(name, case.queues, case.outcome, why)
        saturated = own_share(bench, *ALL_WORKERS), own_share(bench, *ONE_WORKER)
        cells = rounds_of(bench, heavy_rate(bench), rounds) if rounds else ()
    return servertable.Row(name, case.queues, case.outcome, why, cells, saturated)


def broken(row: servertable.Row) -> list[str]:
    """Promises that do not hold for one server."""
    if row.outcome == "left alone":
        return []
    under_load = max((cell.server_poll_share or 0 for cell in row.cells if cell.treatment == "suspension"), default=0.0)
    found = [f"{row.name}: {metric} is worse than with deferral" for metric in LATENCIES
             if row.cells and is_worse(list(row.cells), metric)]  # fmt: skip
    if max(under_load, *row.saturated) < OWN:
        found.append(f"{row.name}: it made {under_load:.0%} of the polls, at saturation {row.saturated}")
    return found


@pytest.mark.trials
@pytest.mark.timeout(2400)
def test_what_fits_polls_by_itself_and_is_no_slower_and_what_does_not_fit_is_left_alone(
    tmp_path: Path,
    napctl: Napctl,
    trials: Callable[[int, int], int],
    sampled: Callable[[Sequence[str], int], list[str]],
) -> None:
    """Whether it is no slower is left to the long form: few rounds would not tell it."""
    rounds = trials(0, 5)
    chosen = list(CASES) if rounds else sampled(SHORT, 1)
    rows = []
    for name in chosen:
        rows.append(examine(name, CASES[name], tmp_path, napctl, rounds))
        print(rows[-1].line())
    if len(chosen) == len(CASES):
        servertable.put(servertable.written(rows, rounds))
    assert [words for row in rows for words in broken(row)] == []


def test_the_table_in_the_documentation_has_a_row_for_each_server() -> None:
    assert servertable.names() == list(CASES)
