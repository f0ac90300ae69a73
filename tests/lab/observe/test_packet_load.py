"""A real overload is seen within a second, and a load that leaves room is none."""

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import Lab
from napctl.lab.flood import (
    FloodSpec,
    make_packets_dear,
    peak_per_second,
    started_flood,
    take_in_softirq,
    udp_server,
)
from napctl.lab.servers import Server
from napctl.model.overload import OverloadedCpu, PacketLoad, overloaded
from napctl.observe.packet_load import PacketLoadReader
from tests.lab.flooded import FloodBed
from tests.lab.helpers import until
from tests.tries import in_one_of

pytestmark = [pytest.mark.lab, pytest.mark.alone]

PAUSE_S = 0.25
"""Between two readings, as the protection makes them."""


@pytest.fixture
def flooded() -> Iterator[tuple[Lab, Server]]:
    """All of the receiver on CPU 1, and packets that are dear."""
    with Lab.build(server_cpu=1, client_cpu=0) as lab, udp_server(lab) as server:
        make_packets_dear(lab.server)
        yield lab, server


def reader_of(lab: Lab) -> PacketLoadReader:
    return PacketLoadReader([(lab.server.namespace, [lab.server.device])])


def watched(reader: PacketLoadReader, seconds: float) -> Iterator[tuple[float, PacketLoad | None]]:
    """A reading each quarter of a second, and when it was."""
    began = time.monotonic()
    while (at := time.monotonic() - began) < seconds:
        yield at, reader.load()
        time.sleep(PAUSE_S)


def on_cpu_1(load: PacketLoad | None) -> list[OverloadedCpu]:
    return [each for each in overloaded(load) if each.cpu == 1] if load else []


def test_overload_is_seen_within_a_second_and_half_the_peak_is_none(shared_flood_bed: FloodBed) -> None:
    overload_is_seen(shared_flood_bed.lab, shared_flood_bed.peak)


@pytest.mark.long
def test_so_it_is_where_packets_are_taken_in_softirq(flooded: tuple[Lab, Server]) -> None:
    lab, _ = flooded
    take_in_softirq(lab.server)
    overload_is_seen(lab, peak_per_second(lab))


def overload_is_seen(lab: Lab, peak: float) -> None:
    with reader_of(lab) as reader:
        in_one_of(lambda: half_the_peak_is_none(lab, reader, peak))
        in_one_of(lambda: seen_within_a_second(lab, reader, peak))
        until(lambda: is_calm(reader), "the end of the overload")


def is_calm(reader: PacketLoadReader) -> bool:
    time.sleep(PAUSE_S)
    load = reader.load()
    return load is not None and on_cpu_1(load) == []


def half_the_peak_is_none(lab: Lab, reader: PacketLoadReader, peak: float) -> None:
    with started_flood(lab, FloodSpec(rate_per_second=peak / 2, seconds=10)) as running:
        running.wait_until_sending()
        calm = [load for _, load in watched(reader, 1.5) if load]
        running.stop()
    assert len(calm) > 3
    assert [found for load in calm for found in on_cpu_1(load)] == []


def seen_within_a_second(lab: Lab, reader: PacketLoadReader, peak: float) -> None:
    with started_flood(lab, FloodSpec(rate_per_second=4 * peak, seconds=10)) as running:
        running.wait_until_sending()
        seen = [(at, load, found) for at, load in watched(reader, 2) for found in on_cpu_1(load)]
        result = running.stop()
    assert result.sent_per_second > 2 * peak
    assert seen
    at, _, _ = seen[0]
    assert at < 1.0
    _, load, last = seen[-1]
    assert last.level == "overloaded"
    assert load is not None
    late = {kind for each in load.drops for kind, rate in each.late.items() if rate > 100}
    late |= {"backlog" for cpu in load.cpus if cpu.cpu == 1 and (cpu.backlog_drops_per_second or 0) > 100}
    assert late & {"udp_buffer", "backlog"}


@pytest.mark.long
def test_a_storm_to_a_port_where_nobody_listens_is_late_drops_too(flooded: tuple[Lab, Server]) -> None:
    lab, _ = flooded
    spec = FloodSpec(rate_per_second=20_000, seconds=1.5, port=9)
    with reader_of(lab) as reader, started_flood(lab, spec) as running:
        running.wait_until_sending()
        *_, (_, load) = watched(reader, 1.2)
        running.result()
    assert load is not None
    (drops,) = load.drops
    assert drops.late["udp_no_port"] > 1000


def test_reading_costs_less_than_a_hundredth_of_a_cpu_at_four_a_second() -> None:
    with Lab.build(queues=64) as lab, reader_of(lab) as reader:
        reader.load()

        def attempt() -> None:
            began = time.process_time()
            for _ in range(40):
                reader.load()
            assert (time.process_time() - began) / 40 < 0.0025

        in_one_of(attempt)


def descriptors() -> int:
    gc.collect()  # what earlier tests have left is not closed meanwhile
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_it_leaves_nothing_open_that_would_hold_a_namespace() -> None:
    with Lab.build() as lab:
        before = descriptors()
        with reader_of(lab) as reader:
            reader.read()
            assert descriptors() > before
        assert descriptors() == before


def test_the_calm_of_a_machine_is_told_with_what_is_not_known() -> None:
    with NetworkNamespace.current() as netns, PacketLoadReader([(netns, ["lo"])]) as reader:

        def whole() -> PacketLoad | None:
            """NAPI threads of labs that have gone end late."""
            time.sleep(PAUSE_S)
            load = reader.load()
            return load if load and load.cpus and all(each.packet_share is not None for each in load.cpus) else None

        load = until(whole, "a reading in which no thread ends")
    assert load is not None
    waits = {each.waited_share is None for each in load.cpus}
    assert waits == {any("/proc/schedstat" in lack for lack in load.lacks)}
