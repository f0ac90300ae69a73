"""Attaching costs nothing after the moment it is done: the same server calling EPIOCSPARAMS itself does no better."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.model.suspension import Suspension
from tests.lab.helpers import PREFERS, UNSET, ending, params_of, set_napi
from tests.lab.rounds import Cell, compare, summarise
from tests.lab.trial import Bench, plain

pytestmark = [pytest.mark.lab, pytest.mark.alone, pytest.mark.long]

METRICS = {"closed loop": ("requests_per_second",), "open loop": ("p50_us", "p99_us", "cpu_us_per_request")}
LOAD = 0.6
"""Of what saturates it with interrupts."""
NEAR = 0.05
"""A difference of medians below this is none, even if it lies beyond the spread."""
EXTRA = 2
"""How often as many rounds more may be made, if a difference shows: by chance alone one does in about one of nine runs,
with four rounds and four figures (tests.lab.rounds.compare), and not with twelve."""


@contextmanager
def one(lab: Lab, journal: Journal, *, native: bool) -> Iterator[Bench]:
    """A new process of the server: each of them may be lucky in its own way."""
    with ending(plain(lab, suspend=native)) as server:
        yield Bench(lab, server, "http", journal, repeats=1, metered=False)


@contextmanager
def device_half(lab: Lab) -> Iterator[None]:
    """As attaching sets it."""
    (napi,) = lab.server.napis()
    set_napi(lab, napi.napi_id, Suspension().napi)
    yield
    set_napi(lab, napi.napi_id, napi.settings)


def cells(lab: Lab, journal: Journal, rate: float, number: int, *, native: bool) -> list[Cell]:
    """An open and a closed loop, of the server that asks for suspension itself or of one that is attached."""
    found = []
    for each in (rate, 0):
        with ExitStack() as stack:
            bench = stack.enter_context(one(lab, journal, native=native))
            if native:
                stack.enter_context(device_half(lab))
                cell, _ = bench.cell("interrupts", bench.spec(each, 1, number))  # nothing is attached
                assert set(params_of(bench.server.pid).values()) == {PREFERS}
            else:
                cell, _ = bench.cell("suspension", bench.spec(each, 1, number))
                assert set(params_of(bench.server.pid).values()) == {UNSET}  # it was detached again
        found.append(renamed(cell, "native" if native else "attached"))
    return found


def renamed(cell: Cell, treatment: str) -> Cell:
    return Cell(**{field: getattr(cell, field) for field in Cell.__struct_fields__} | {"treatment": treatment})


def differences(measured: list[Cell]) -> list[str]:
    """Figures in which the two differ beyond the noise, in words."""
    rows = {(row.treatment, row.load): row for row in summarise(measured)}
    found = []
    for load, metrics in METRICS.items():
        native, attached = rows["native", load], rows["attached", load]
        for metric in metrics:
            a, b = attached.metrics[metric].median, native.metrics[metric].median
            verdict = compare(attached, native, metric)
            words = f"{load}, {metric}: attached {a:.2f}, native {b:.2f}: {verdict}"
            print(words)
            if verdict != "no different" and abs(a - b) >= NEAR * b:
                found.append(words)
    return found


@pytest.mark.timeout(600)
def test_attached_it_does_as_well_as_a_server_that_asks_for_suspension_itself(tmp_path: Path) -> None:
    measured: list[Cell] = []
    with Lab.build() as lab, Journal(tmp_path) as journal:
        with one(lab, journal, native=False) as bench:
            rate = LOAD * bench.saturating_rate()
        for more in range(1 + EXTRA):
            for number in range(1, 8 + 1):
                forms = (False, True) if number % 2 else (True, False)
                for native in forms:
                    measured += cells(lab, journal, rate, 100 * more + number, native=native)
            different = differences(measured)
            if not different:
                break
        print(f"{len(measured)} cells at {rate:.0f} requests/s and in a closed loop")
    assert not different
