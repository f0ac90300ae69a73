"""What attaching is for: the shape of the published results, on this machine's lab.

Figures are compared within one run only. The bounds are the promises of the README; each is judged by the median of
interleaved rounds, since other work may disturb any one of them.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.servers import memcached
from napctl.measure.experiment import KEYS_PER_GET, VALUE_BYTES, Bench, LoadLevel, experiment
from napctl.measure.summary import Row, summarise
from napctl.measure.treatment import BUSY_POLLING, DEFERRAL, INTERRUPTS, SUSPENSION, Treatment
from napctl.observe.window import Observer
from tests.lab.helpers import machine_of

pytestmark = pytest.mark.lab
ROUNDS = 3


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        lab = stack.enter_context(Lab.build())
        server = stack.enter_context(memcached(lab, keys=KEYS_PER_GET, value_bytes=VALUE_BYTES))
        before = machine_of(lab.server)
        journal = stack.enter_context(Journal(tmp_path))
        observer = stack.enter_context(Observer(lab.server.namespace, [lab.server.device]))
        yield Bench(lab, server, journal, observer)
        assert machine_of(lab.server) == before
        assert journal.live() == []


def rows(bench: Bench, treatments: list[Treatment], rate: float) -> dict[str, Row]:
    level = LoadLevel(name="load", rate_per_second=rate)
    cells = experiment(bench, treatments, [level], rounds=ROUNDS, seconds=1.0, seed=1, progress=lambda _: None)
    return {row.treatment: row for row in summarise(cells)}


def median(row: Row, metric: str) -> float:
    return row.metrics[metric].median


def test_at_half_of_its_saturating_load_the_server_makes_nine_of_ten_polls_itself(bench: Bench) -> None:
    saturating = bench.saturating_rate(SUSPENSION, 1.0)

    found = rows(bench, [SUSPENSION], saturating / 2)

    assert median(found["suspension"], "server_poll_share") >= 0.9


def test_its_p50_lies_below_that_of_plain_deferral_with_the_same_timer(bench: Bench) -> None:
    saturating = bench.saturating_rate(INTERRUPTS, 1.0)

    found = rows(bench, [SUSPENSION, DEFERRAL], saturating / 2)

    assert median(found["suspension"], "p50_us") < median(found["deferral"], "p50_us")
    assert median(found["suspension"], "server_poll_share") > 0.5  # it is suspension, and not interrupts
    assert median(found["deferral"], "server_poll_share") == 0


def test_at_rest_it_costs_at_most_two_points_of_a_cpu_where_busy_polling_takes_all_of_it(bench: Bench) -> None:
    found = rows(bench, [INTERRUPTS, SUSPENSION, BUSY_POLLING], 0)

    extra = median(found["suspension"], "server_cpu_share") - median(found["interrupts"], "server_cpu_share")
    assert extra <= 0.02
    assert median(found["busy polling"], "server_cpu_share") > 0.8
