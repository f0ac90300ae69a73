"""A flood in the metrics: the time that it took a CPU, and what was dropped late."""

import time

import pytest

from napctl.lab.bed import Lab
from napctl.lab.flood import FloodSpec, started_flood, udp_server
from napctl.service.metrics import SnapshotCollector, text_of
from napctl.service.snapshots import SnapshotTaker, Watched
from tests.lab.flooded import let_packets_take_the_cpu

pytestmark = [pytest.mark.lab, pytest.mark.alone]

MUCH = 300_000.0
"""Packets per second: several times what the server can answer."""


@pytest.mark.long
def test_the_time_of_a_flood_and_its_late_drops_are_counted() -> None:
    with Lab.build(server_cpu=1, client_cpu=0) as lab, udp_server(lab), SnapshotTaker("test") as taker:
        let_packets_take_the_cpu(lab.server)
        watched = [Watched(lab.server.namespace, [lab.server.device])]
        taker.take(watched)
        time.sleep(1)
        calm = taker.take(watched).overload
        with started_flood(lab, FloodSpec(rate_per_second=MUCH, seconds=4)) as running:
            running.wait_until_sending()
            time.sleep(0.3)
            taker.take(watched)
            time.sleep(2)
            last = taker.take(watched)
            running.stop()
    assert calm.seconds["overloaded"] == 0
    assert calm.late_drops is not None
    assert last.overload.late_drops is not None
    assert last.overload.late_drops > calm.late_drops + 10_000
    assert 1.5 < last.overload.seconds["overloaded"] < 3
    collector = SnapshotCollector()
    collector.show(last)
    text = text_of(collector).decode()
    assert 'napctl_overloaded_seconds_total{level="crowded"} 0.0' in text
    assert f'napctl_overloaded_seconds_total{{level="overloaded"}} {last.overload.seconds["overloaded"]}' in text
