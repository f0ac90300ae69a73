"""Overload from two readings: known only where it is counted, and a counter that fell is nothing that was counted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.model.overload import (
    LATE_KINDS,
    CpuCounters,
    CpuLoad,
    DropReading,
    LateDrops,
    LoadReading,
    NamespaceDrops,
    PacketLoad,
    PacketThread,
    load_between,
    overloaded,
    overloaded_words,
)
from napctl.model.value import from_json, to_json

SECOND = 10**9
U32 = 2**32


def reading(at_s: float = 0.0, *cpus: CpuCounters, **changes: Any) -> LoadReading:
    made = LoadReading(monotonic_ns=round(at_s * SECOND), cpus=cpus or (cpu(),), threads=(), drops=())
    return replace(made, **changes)


def cpu(number: int = 1, **changes: Any) -> CpuCounters:
    made = CpuCounters(
        cpu=number, system=0.0, idle=0.0, softirq=0.0, steal=0.0, waited_ns=0, packets=0, backlog_drops=0
    )
    return replace(made, **changes)


def thread(**changes: Any) -> PacketThread:
    return replace(PacketThread(pid=9, name="napi/eth0-8193", cpu=1, ran_ns=0, waited_ns=0), **changes)


def only(before: LoadReading, after: LoadReading) -> CpuLoad:
    (found,) = load_between(before, after).cpus
    return found


def test_a_softirq_and_a_napi_thread_are_packet_work() -> None:
    softirq = only(reading(), reading(1, cpu(softirq=0.97, idle=0.01)))
    assert (softirq.packet_share, softirq.idle_share) == (0.97, 0.01)
    before, after = reading(threads=(thread(),)), reading(1, cpu(system=1.0), threads=(thread(ran_ns=960_000_000),))
    assert only(before, after).packet_share == 0.96


def test_what_a_probe_counted_of_softirqs_stands_for_what_the_tick_missed() -> None:
    before = reading(0, cpu(net_rx_ns=5))
    assert only(before, reading(1, cpu(softirq=0.71, net_rx_ns=975_000_005))).packet_share == 0.975
    assert only(before, reading(1, cpu(softirq=0.71, net_rx_ns=500_000_000))).packet_share == 0.71
    assert only(before, reading(1, cpu(softirq=0.71, net_rx_ns=4))).packet_share == 0.71
    assert only(before, reading(1, cpu(softirq=0.71))).packet_share == 0.71


def test_softirqs_on_top_of_a_napi_thread_are_counted_once() -> None:
    before = reading(threads=(thread(),))
    after = reading(1, cpu(softirq=0.5, system=0.2), threads=(thread(ran_ns=700_000_000),))
    assert only(before, after).packet_share == pytest.approx(0.7)


def test_a_napi_thread_that_waits_is_no_thread_that_packets_keep_waiting() -> None:
    before = reading(threads=(thread(),))
    after = reading(1, cpu(waited_ns=900_000_000), threads=(thread(waited_ns=700_000_000),))
    assert only(before, after).waited_share == pytest.approx(0.2)


def test_a_share_is_of_the_time_that_the_hypervisor_gave() -> None:
    assert only(reading(), reading(1, cpu(softirq=0.48, steal=0.5))).packet_share == pytest.approx(0.96)


def test_a_napi_thread_that_came_or_went_is_a_gap_on_its_cpu_alone() -> None:
    two = (cpu(0), cpu(1))
    for before, after in ((thread(), thread(pid=10)), (thread(ran_ns=5), thread(ran_ns=4))):
        load = load_between(reading(0, *two, threads=(before,)), reading(1, *two, threads=(after,)))
        assert [each.packet_share for each in load.cpus] == [0.0, None]
        assert [each.waited_share for each in load.cpus] == [0.0, None]


def test_a_cpu_that_came_or_went_is_not_told() -> None:
    load = load_between(reading(0, cpu(0), cpu(1)), reading(1, cpu(1), cpu(2)))
    assert [each.cpu for each in load.cpus] == [1]


def test_so_short_a_time_tells_nothing_and_says_so() -> None:
    load = load_between(reading(), reading(0.19, cpu(softirq=0.19)))
    assert (load.cpus, load.drops, overloaded(load)) == ((), (), ())
    assert "0.2 s" in load.lacks[0]


def dropping(late: LateDrops, ring: dict[str, int] | None = None, netns: int = 7) -> tuple[DropReading, ...]:
    return (DropReading(netns=netns, late=late, ring=ring or {}),)


def test_drops_are_told_by_kind_and_by_device_and_what_fell_or_is_missing_is_no_figure() -> None:
    before = reading(drops=dropping(LateDrops(udp_buffer=10, tcp_backlog=5, listen=1), {"eth0": 3, "eth1": 9}))
    after = reading(
        2, drops=dropping(LateDrops(udp_buffer=30, tcp_backlog=4, udp_no_port=8), {"eth0": 13, "eth1": 1, "eth2": 5})
    )
    (found,) = load_between(before, after).drops
    assert (found.late, found.ring) == ({"udp_buffer": 10.0}, {"eth0": 5.0})


def test_a_namespace_that_came_is_not_told() -> None:
    before, after = (dropping(LateDrops(listen=each), netns=each) for each in (1, 2))
    load = load_between(reading(drops=before), reading(1, drops=after))
    assert load.drops == ()
    assert load.ring_drops_per_second is None


def test_late_drops_are_those_of_all_namespaces_and_backlogs() -> None:
    before = reading(drops=(*dropping(LateDrops(listen=0)), *dropping(LateDrops(udp_buffer=0), netns=8)))
    after = reading(
        1, cpu(backlog_drops=100), drops=(*dropping(LateDrops(listen=10)), *dropping(LateDrops(udp_buffer=1), netns=8))
    )
    assert load_between(before, after).late_drops_per_second == 111.0


def test_a_backlog_counter_that_wraps_is_counted_on() -> None:
    found = only(reading(0, cpu(backlog_drops=U32 - 50)), reading(1, cpu(backlog_drops=50)))
    assert found.backlog_drops_per_second == 100.0
    assert only(reading(0, cpu(packets=U32 - 5)), reading(1, cpu(packets=5))).packets_per_second == 10.0
    assert only(reading(0, cpu(backlog_drops=U32 // 2)), reading(1, cpu())).backlog_drops_per_second is None


def load(late: float | None = 5000.0, **changes: Any) -> PacketLoad:
    one = CpuLoad(
        cpu=1,
        packet_share=0.97,
        idle_share=0.0,
        waited_share=0.85,
        packets_per_second=50_000.0,
        backlog_drops_per_second=None,
    )
    drops = () if late is None else (NamespaceDrops(netns=7, late={"udp_buffer": late}, ring={}),)
    return PacketLoad(seconds=1.0, cpus=(replace(one, **changes),), drops=drops)


@pytest.mark.parametrize(
    ("changes", "levels"),
    [
        ({}, ["overloaded"]),
        ({"packet_share": 0.9}, ["overloaded"]),
        ({"packet_share": 0.89}, ["overloaded"]),
        ({"packet_share": 0.89, "late": 4999.0}, []),
        ({"packet_share": 0.89, "packets_per_second": None}, []),
        ({"packet_share": 0.89, "late": None}, []),
        ({"packet_share": 0.5}, ["overloaded"]),
        ({"packet_share": 0.49}, []),
        ({"packet_share": 0.5, "late": 99.0, "packets_per_second": 100.0}, []),
        ({"packet_share": None}, []),
        ({"waited_share": 0.5}, ["overloaded"]),
        ({"waited_share": 0.49}, []),
        ({"waited_share": None}, ["overloaded"]),
        ({"waited_share": None, "idle_share": 0.05}, ["overloaded"]),
        ({"waited_share": None, "idle_share": 0.06}, []),
        ({"waited_share": None, "idle_share": None}, []),
        ({"idle_share": None}, ["overloaded"]),
        ({"idle_share": 0.06}, []),
        ({"late": 100.0}, ["overloaded"]),
        ({"late": 99.0}, ["crowded"]),
        ({"late": None}, ["crowded"]),
    ],
)
def test_overload_is_packet_work_and_waiting_threads_and_late_drops(changes: dict[str, Any], levels: list[str]) -> None:
    assert [each.level for each in overloaded(load(**changes))] == levels


def test_what_a_slow_reader_loses_makes_no_cpu_overloaded_that_takes_packets_of_others() -> None:
    (one,) = load().cpus
    half = replace(one, packet_share=0.6, packets_per_second=10_000.0)
    busy = replace(one, cpu=0, packet_share=0.4, packets_per_second=90_000.0)
    assert overloaded(replace(load(late=2_000.0), cpus=(busy, half))) == ()
    (found,) = overloaded(replace(load(late=10_000.0), cpus=(busy, half)))
    assert (found.cpu, found.packets_per_second) == (1, 10_000.0)


def test_the_words_have_its_figures() -> None:
    (found,) = overloaded(load(late=12_000.0))
    assert overloaded_words(found) == (
        "CPU 1 overloaded: packets take 97 %, threads waited 85 % of the time, "
        "12,000/s dropped after the stack worked on them"
    )
    (found,) = overloaded(load(late=None, waited_share=None))
    assert overloaded_words(found) == "CPU 1 crowded: packets take 97 %, threads get 3 %"
    ring = replace(found, ring_drops_per_second=30_000.0)
    assert overloaded_words(ring).endswith("threads get 3 %, 30,000/s dropped in the ring, before it")


def test_the_most_loaded_cpu_comes_first() -> None:
    (one,) = load().cpus
    both = replace(load(), cpus=(replace(one, cpu=0, packet_share=0.91), one))
    assert [each.cpu for each in overloaded(both)] == [1, 0]


COUNTS = st.integers(0, 2**64)
TIMES = st.floats(0, 1e9)
CPUS = st.builds(
    CpuCounters,
    cpu=st.integers(0, 3),
    system=TIMES,
    idle=TIMES,
    softirq=st.none() | TIMES,
    steal=st.none() | TIMES,
    net_rx_ns=st.none() | COUNTS,
    waited_ns=st.none() | COUNTS,
    packets=st.none() | st.integers(0, U32 - 1),
    backlog_drops=st.none() | st.integers(0, U32 - 1),
)
THREADS = st.builds(
    PacketThread, pid=st.integers(1, 3), name=st.just("napi/x-1"), cpu=st.none() | st.integers(0, 3), ran_ns=COUNTS,
    waited_ns=COUNTS,
)  # fmt: skip
LATE = st.builds(LateDrops, **dict.fromkeys(LATE_KINDS, st.none() | COUNTS))
DROPS = st.builds(
    DropReading, netns=st.integers(0, 1), late=LATE, ring=st.dictionaries(st.sampled_from(["a", "b"]), COUNTS)
)
READINGS = st.builds(
    LoadReading,
    monotonic_ns=st.integers(0, 2**62),
    cpus=st.lists(CPUS, max_size=4, unique_by=lambda each: each.cpu).map(tuple),
    threads=st.none() | st.lists(THREADS, max_size=3, unique_by=lambda each: each.pid).map(tuple),
    drops=st.lists(DROPS, max_size=2, unique_by=lambda each: each.netns).map(tuple),
)


@given(READINGS, READINGS)
def test_whatever_counters_do_no_figure_is_negative_and_no_share_above_one(
    before: LoadReading, after: LoadReading
) -> None:
    found = load_between(before, after)
    for each in found.cpus:
        for share in (each.packet_share, each.idle_share, each.waited_share):
            assert share is None or 0 <= share <= 1
        for rate in (each.packets_per_second, each.backlog_drops_per_second):
            assert rate is None or rate >= 0
    rates = [rate for each in found.drops for rate in (*each.late.values(), *each.ring.values())]
    assert all(rate >= 0 for rate in rates)
    assert from_json(to_json(found), PacketLoad) == found
    for one in overloaded(found):
        assert one.packet_share >= (0.9 if one.level == "crowded" else 0.5)
        assert overloaded_words(one).startswith(f"CPU {one.cpu} ")


@given(READINGS, st.floats(0.2, 60))
def test_a_machine_on_which_nothing_happened_has_no_load(before: LoadReading, seconds: float) -> None:
    found = load_between(before, replace(before, monotonic_ns=before.monotonic_ns + round(seconds * SECOND) + 1))
    assert overloaded(found) == ()
    assert {each.packet_share for each in found.cpus} <= {0.0, None}
    assert not found.late_drops_per_second
