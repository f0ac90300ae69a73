"""How often a snapshot is taken: as often as anybody can want one, and rarely while nobody asks."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.policy import MetricsPlace, ServiceEntry
from napctl.model.snapshot import PolicyState
from napctl.service.exposure import CHANGED_SECONDS, RARE_SECONDS, SNAPSHOT_SECONDS, UNASKED_NS, Exposure
from napctl.service.metrics import MetricsServer, SnapshotCollector

LONG_SECONDS = UNASKED_NS / 1e9 + 1


class Clock:
    """Its time is set by hand."""

    now = 1000.0

    def __call__(self) -> int:
        return int(self.now * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextmanager
def exposed(place: MetricsPlace, clock: Clock) -> Iterator[Exposure]:
    with NetworkNamespace.current() as netns, Exposure(ServiceEntry(metrics=place), netns, clock) as exposure:
        assert exposure.seconds_left(clock.now) == 0
        turn(exposure)
        yield exposure


def turn(exposure: Exposure) -> None:
    exposure.turn((), (), {}, PolicyState())


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_while_nobody_scrapes_snapshots_are_rarer(clock: Clock) -> None:
    with MetricsServer(SnapshotCollector(), "127.0.0.1", 0) as free:
        port = free.port
    with exposed(MetricsPlace(address="127.0.0.1", port=port), clock) as exposure:
        assert exposure.seconds_left(clock.now) == SNAPSHOT_SECONDS
        clock.now += LONG_SECONDS
        assert exposure.seconds_left(clock.now) == 0
        turn(exposure)
        assert exposure.seconds_left(clock.now) == RARE_SECONDS

        clock.now += 40
        assert "napctl_up 1.0" in scrape(port)
        assert exposure.seconds_left(clock.now) == 0, "who begins to ask gets fresh ones"
        turn(exposure)
        assert exposure.seconds_left(clock.now) == SNAPSHOT_SECONDS

        clock.now += LONG_SECONDS
        turn(exposure)
        exposure.changed()
        clock.now += 0.5
        exposure.changed()
        assert exposure.seconds_left(clock.now) == pytest.approx(CHANGED_SECONDS - 0.5), "after a decision as ever"


def test_a_textfile_may_be_read_by_somebody_at_any_time(clock: Clock, tmp_path: Path) -> None:
    with exposed(MetricsPlace(textfile=str(tmp_path / "napctl.prom")), clock) as exposure:
        clock.now += LONG_SECONDS
        turn(exposure)
        clock.now += LONG_SECONDS
        assert exposure.seconds_left(clock.now - LONG_SECONDS) == SNAPSHOT_SECONDS


def test_without_a_place_there_is_nothing_to_take() -> None:
    with NetworkNamespace.current() as netns, Exposure(ServiceEntry(), netns) as exposure:
        assert exposure.seconds_left(0) == float("inf")
