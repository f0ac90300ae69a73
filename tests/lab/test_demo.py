"""Promises of the demo: one table, three sentences, and nothing left."""

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from napctl.cli.demo import Report
from tests.lab.helpers import Napctl, until

pytestmark = pytest.mark.lab


def namespaces() -> set[str]:
    """Network namespaces that a process is in or holds open."""
    found = set()
    for link in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/proc").glob("[0-9]*/fd/*")):
        with suppress(OSError):
            found.add(str(link.readlink()))
    return {name for name in found if name.startswith("net:[")}


def test_the_demo_compares_four_treatments_at_three_loads_and_leaves_nothing(napctl: Napctl) -> None:
    before = namespaces()

    done = napctl("demo", "--rounds", 2, "--seconds", 0.5, "--seed", 7, timeout_s=90)

    assert done.status == 0, done.stderr
    for word in ("rest", "light", "heavy", "p50", "p99", "CPU %", "µs/req", "NET_RX/s", "polls %", "seed 7"):
        assert word in done.stdout
    for treatment in ("interrupts", "deferral", "busy polling", "suspension"):
        assert sum(line.startswith(treatment) for line in done.stdout.splitlines()) == 3
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "Under heavy load" in done.stdout
    assert "round 2 of 2" in done.stderr
    until(lambda: namespaces() == before, "the lab has gone")


def test_its_json_holds_every_cell_and_what_is_said_of_them(napctl: Napctl) -> None:
    done = napctl("demo", "--rounds", 2, "--seconds", 0.5, "--json", timeout_s=90)

    report = msgspec.json.decode(done.stdout, type=Report)
    assert len(report.cells) == 2 * 4 * 3
    assert len(report.rows) == 4 * 3
    assert len(report.sentences) == 3
    assert {cell.load for cell in report.cells} == {"rest", "light", "heavy"}
    assert all(cell.requests_per_second > 0 for cell in report.cells if cell.load != "rest")
