"""What the modes that need no suspension do to real servers; the long form writes their table in docs/servers.md."""

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal

import pytest

from napctl.attach.attach_options import AttachOptions, in_mode
from napctl.attach.attach_target import attach_target
from napctl.attach.attachment import detach
from napctl.attach.judge_target import judge_target
from napctl.attach.target import parse, resolve
from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server
from napctl.lab.webservers import redis
from napctl.model.suspension import Suspension
from napctl.observe.window import Observer
from tests.lab.other_servers import caddy
from tests.lab.servertable import DOCUMENT, rounded
from tests.lab.trial import LATE_SHARE, Bench, Protocol

pytestmark = [pytest.mark.lab, pytest.mark.alone]

Way = Literal["as it is", "thread", "defer"]
WAYS: tuple[Way, ...] = ("as it is", "thread", "defer")
BEGIN = "<!-- written by tests/lab/attach/test_modes_of_servers.py -->"
END = "<!-- end of what it writes -->"
HEAD = ("| server | mode | requests/s | p50 µs | p99 µs | CPU % | polls/s |", "|---|---|--:|--:|--:|--:|--:|")
QUEUES, LOAD = 4, 0.4
SERVERS: dict[str, tuple[Callable[[Lab], Server], Protocol]] = {
    "caddy (Go), 4 queues": (caddy, "http"),
    "redis, 4 queues": (redis, "redis"),
}
TIMER_NS = 200_000


@dataclass(frozen=True)
class Cell:
    """One way in one round."""

    way: Way
    p50_us: float
    p99_us: float
    cpu_share: float
    polls_per_second: float
    late: bool


@contextmanager
def attached(bench: Bench, way: Way) -> Iterator[None]:
    if way == "as it is":
        yield
        return
    timer_ns = TIMER_NS if way == "defer" else None
    options = in_mode(AttachOptions(suspension=Suspension(), timer_ns=timer_ns), way)
    target = judge_target("server", resolve(parse(str(bench.server.pid))), options)
    made = attach_target(bench.journal, target, options, lambda _: None).transaction
    try:
        yield
    finally:
        detach(bench.journal, [each for each in bench.journal.live() if each.number == made.number])


def cell(bench: Bench, way: Way, spec: LoadSpec) -> Cell:
    with ExitStack() as stack:
        load = stack.enter_context(started(bench.lab, bench.server, spec))
        bench.wait_for_connections(spec.connections)
        stack.enter_context(attached(bench, way))
        observer = stack.enter_context(Observer(bench.lab.server.namespace, [bench.lab.server.device]))
        load.wait_for_warmup()
        observer.restart()
        before = bench.cpu_seconds()
        result = load.result()
        used, window = bench.cpu_seconds() - before, observer.window(refresh=False)
        ours = {napi.napi_id for napi in bench.lab.server.napis()}
        polls = sum(napi.polls.polls for napi in window.napis if napi.napi_id in ours)
    assert result.p50_us is not None
    assert result.p99_us is not None
    return Cell(
        way, result.p50_us, result.p99_us, used / spec.seconds, polls / window.seconds, result.late_share > LATE_SHARE
    )


def row(name: str, way: Way, rate: float, cells: list[Cell]) -> str:
    mine = [each for each in cells if each.way == way]

    def of(figure: Callable[[Cell], float]) -> str:
        return rounded(median(map(figure, mine)))

    shown: tuple[Callable[[Cell], float], ...] = (
        lambda each: each.p50_us,
        lambda each: each.p99_us,
        lambda each: 100 * each.cpu_share,
        lambda each: each.polls_per_second,
    )
    figures = (rounded(rate), *map(of, shown))
    return f"| {name} | {way} | {' | '.join(figures)} |"


@pytest.mark.long
@pytest.mark.trials
@pytest.mark.timeout(900)
def test_each_mode_has_its_price(tmp_path: Path, trials: Callable[[int, int], int]) -> None:
    """Nothing is asserted of the figures but that every way was measured: what they are, the table says."""
    rounds = trials(3, 5)
    lines, late, count = [], 0, 0
    for name, (start, protocol) in SERVERS.items():
        with ExitStack() as stack:
            lab = stack.enter_context(Lab.build(queues=QUEUES))
            server = stack.enter_context(start(lab))
            journal = stack.enter_context(Journal(Path(stack.enter_context(TemporaryDirectory(dir=tmp_path)))))
            bench = Bench(lab, server, protocol, journal)
            rate = LOAD * bench.saturating_rate()
            cells = [
                cell(bench, way, bench.spec(rate, 1, number))
                for number in range(1, rounds + 1)
                for way in WAYS[:: 1 if number % 2 else -1]
            ]
        lines += [row(name, way, rate, cells) for way in WAYS]
        late, count = late + sum(each.late for each in cells), count + len(cells)
    text = "\n".join([
        f"Linux {platform.release()}; 2 CPUs, veth, one run; medians of {rounds} rounds. In {late} of {count}",
        "cells other work of the machine delayed the load generator.", "", *HEAD, *lines,
    ])  # fmt: skip
    print(text)
    put(text)
    assert all(f"| {name} | {way} |" in text for name in SERVERS for way in WAYS)


def put(text: str) -> None:
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def test_the_documentation_has_a_row_for_each_of_them() -> None:
    told = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    assert all(f"| {name} | {way} |" in told for name in SERVERS for way in WAYS)
