"""Totals never fall, whatever the kernel's counters do, and hold all that was counted where these only grow."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.counts import CounterReading, CpuCounts, DeviceCounts, NapiCounts, ProbeCounts
from napctl.model.difference import between
from napctl.model.finding import Finding
from napctl.model.histogram import EMPTY, Histogram
from napctl.model.latency import BUCKETS as LATENCY_BUCKETS
from napctl.model.latency import LatencyHistogram, ProcessLatency
from napctl.model.overload import CpuLoad, NamespaceDrops, PacketLoad
from napctl.model.snapshot import FoundRule, OverloadTotals
from napctl.model.suspension_counts import WAIT_BUCKETS, SuspensionCounts, suspended_between
from napctl.model.window import NapiWindow
from napctl.service.totals import MOST_KEPT, DeviceSums, NapiSums, OverloadSums, TargetSums, found_rules, grown_by, kept

SMALL = st.integers(min_value=0, max_value=50)
POLLS = st.dictionaries(st.integers(min_value=0, max_value=200), SMALL, max_size=5).map(Histogram.of)


def reading(at: int, packets: int, softirq: Histogram, busy_poll: Histogram) -> CounterReading:
    napi = NapiCounts(
        napi_id=7, device="eth0", ifindex=2, netns=1, instance=0, softirq=softirq, busy_poll=busy_poll
    )  # fmt: skip
    return CounterReading(
        monotonic_ns=at * 10**9,
        unix_ns=at * 10**9,
        probe=ProbeCounts(napis=(napi,), cpus=()),
        cpus=(),
        interrupts={},
        devices=(
            DeviceCounts(
                device="eth0", ifindex=2, rx_packets=packets, tx_packets=2 * packets, rx_dropped=0, tx_dropped=0,
                rx_missed=packets // 3,
            ),
        ),
    )  # fmt: skip


def totals_of(readings: list[CounterReading]) -> list[DeviceSums]:
    """After each window between two of them."""
    sums, found = DeviceSums(), []
    for before, after in pairwise(readings):
        window = between(before, after, devices_before=(), devices_after=(), netns=1)
        for counts in window.devices:
            sums.add_interface(counts)
        for napi in window.napis:
            sums.add(napi, None)
        found.append(DeviceSums(polls=sums.polls, interface=sums.interface))
    return found


@given(st.lists(st.tuples(SMALL, POLLS, POLLS), min_size=2, max_size=6))
def test_totals_never_fall_whatever_counters_do(counters: list[tuple[int, Histogram, Histogram]]) -> None:
    found = totals_of([reading(at, *each) for at, each in enumerate(counters)])
    for earlier, later in pairwise([DeviceSums(), *found]):
        for name in earlier.interface.__struct_fields__:
            assert getattr(later.interface, name) >= getattr(earlier.interface, name)
        for name in ("softirq", "thread", "busy_poll", "netpoll"):
            then, now = getattr(earlier.polls, name), getattr(later.polls, name)
            assert all(a <= b for a, b in zip(then.counts, now.counts, strict=True))
            assert then.packets <= now.packets


@given(st.lists(st.tuples(SMALL, POLLS, POLLS), min_size=2, max_size=6))
def test_totals_are_what_counters_grew_where_these_only_grow(grown: list[tuple[int, Histogram, Histogram]]) -> None:
    packets, softirq, busy_poll = 0, EMPTY, EMPTY
    readings = []
    for at, (more, of_softirq, of_busy_poll) in enumerate(grown):
        packets, softirq, busy_poll = packets + more, softirq + of_softirq, busy_poll + of_busy_poll
        readings.append(reading(at, packets, softirq, busy_poll))
    last = totals_of(readings)[-1]
    assert last.interface.rx_packets == packets - grown[0][0]
    assert last.polls.softirq == softirq - grown[0][1]
    assert last.polls.busy_poll == busy_poll - grown[0][2]
    assert last.polls.empty.unattributed + last.polls.empty.while_polling == last.polls.all.empty


WAITS = st.lists(SMALL, min_size=WAIT_BUCKETS, max_size=WAIT_BUCKETS).map(tuple)


@given(st.lists(st.tuples(SMALL, SMALL, SMALL, WAITS), min_size=2, max_size=5))
def test_suspensions_never_fall_when_the_probe_begins_again(found: list[tuple[int, int, int, tuple[int, ...]]]) -> None:
    sums = NapiSums()
    window = NapiWindow(napi_id=7, device="eth0", ifindex=2, netns=1)
    readings = [
        SuspensionCounts(
            napi_id=7, netns=1, arms=1, suspensions=suspensions, timeouts=timeouts, suspended_ns=ns, waits=waits
        )
        for suspensions, timeouts, ns, waits in found
    ]
    for before, after in pairwise(readings):
        then = sums.suspension
        sums.add(window, suspended_between([before], [after])[1, 7])
        now = sums.suspension
        for name in ("suspensions", "rescues", "suspended_ns"):
            assert getattr(then, name) <= getattr(now, name)
        assert all(a <= b for a, b in zip(then.waits, now.waits, strict=True))


LATENCIES = st.lists(SMALL, min_size=LATENCY_BUCKETS, max_size=LATENCY_BUCKETS).map(
    lambda counts: LatencyHistogram(counts=tuple(counts))
)


@given(st.lists(st.tuples(LATENCIES, LATENCIES), min_size=2, max_size=4))
def test_latencies_never_fall_and_are_of_the_targets_processes_alone(
    found: list[tuple[LatencyHistogram, LatencyHistogram]],
) -> None:
    sums, other = TargetSums(), TargetSums()
    readings = [(ProcessLatency(pid=5, until_read=read, until_reply=reply),) for read, reply in found]
    for before, after in pairwise(readings):
        then = sums.until_read.counts
        sums.add_latency(before, after, {5})
        other.add_latency(before, after, {6})
        assert all(a <= b for a, b in zip(then, sums.until_read.counts, strict=True))
    assert other == TargetSums()


@given(st.lists(st.dictionaries(st.integers(min_value=1, max_value=3), st.floats(0, 100)), max_size=6))
def test_cpu_time_never_falls_when_processes_come_and_go(readings: list[dict[int, float]]) -> None:
    sums, then = TargetSums(), 0.0
    for each in readings:
        sums.add_ran(each)
        assert sums.cpu_seconds >= then
        then = sums.cpu_seconds


def test_what_a_process_ran_before_it_was_first_seen_is_not_counted() -> None:
    sums = TargetSums()
    for each in ({1: 100.0}, {1: 101.5, 2: 7.0}, {2: 7.25}):
        sums.add_ran(each)
    assert sums.cpu_seconds == pytest.approx(1.75)


def test_a_cpu_that_comes_or_goes_hides_no_other() -> None:
    cpus = (CpuCounts(cpu=0, time_squeezes=3), CpuCounts(cpu=1))
    assert grown_by(cpus, "time_squeezes") == 3
    assert grown_by(cpus, "backlog_drops") is None


def test_what_has_gone_is_kept_for_its_return_and_forgotten_when_it_is_too_much() -> None:
    sums = {number: object() for number in range(MOST_KEPT + 10)}
    assert kept(sums, {3}).keys() == {3, *range(10, MOST_KEPT + 10)}
    assert kept(sums, sums.keys()) == sums


def finding(rule: str, where: str) -> Finding:
    return Finding(
        rule=rule, severity="cost", where=where, title="", evidence=(), consequence="", remedy="", certainty="certain",
        basis="",
    )  # fmt: skip


def test_findings_are_counted_by_rule_and_device() -> None:
    found = [
        finding("slow", "NAPI 12 of eth1 (rx0)"),
        finding("slow", "NAPI 13 of eth1 (rx1)"),
        finding("slow", "eth10"),
        finding("odd", "nginx (1234)"),
    ]
    assert found_rules(found, ["eth1", "eth10"]) == (
        FoundRule(rule="slow", device="eth1", severity="cost", count=2),
        FoundRule(rule="slow", device="eth10", severity="cost", count=1),
        FoundRule(rule="odd", device="", severity="cost", count=1),
    )


def loaded(share: float, late: float | None, seconds: float = 5.0) -> PacketLoad:
    cpus = tuple(
        CpuLoad(
            cpu=cpu,
            packet_share=share,
            idle_share=0.0,
            waited_share=0.9,
            packets_per_second=None,
            backlog_drops_per_second=None,
        )
        for cpu in range(2)
    )
    drops = () if late is None else (NamespaceDrops(netns=1, late={"listen": late}, ring={}),)
    return PacketLoad(seconds=seconds, cpus=cpus, drops=drops)


def test_the_time_of_overload_is_summed_over_cpus_by_its_level() -> None:
    sums = OverloadSums()
    assert sums.totals() == OverloadTotals(seconds={"crowded": 0.0, "overloaded": 0.0}, late_drops=None)
    for each in (loaded(0.95, 1000.0), loaded(0.95, 1.0), loaded(0.5, 200.0), loaded(0.95, None)):
        sums.add(each)
    assert sums.totals() == OverloadTotals(seconds={"crowded": 20.0, "overloaded": 10.0}, late_drops=6005)
