"""Snapshots in which everything is told, for any number of devices and targets."""

from hypothesis import strategies as st

from napctl.model.histogram import BUCKETS, Histogram
from napctl.model.latency import BUCKETS as LATENCY_BUCKETS
from napctl.model.latency import LatencyHistogram
from napctl.model.machine import Coalescing
from napctl.model.other_manager import KNOWN_MANAGERS, OtherManager, Touch
from napctl.model.settings import NapiSettings
from napctl.model.snapshot import (
    DECISIONS,
    PROBES,
    DeviceTotals,
    FoundRule,
    InterfaceTotals,
    NapiTotals,
    OverloadTotals,
    OwnUse,
    PolicyState,
    PollTotals,
    Snapshot,
    SuspensionTotals,
    TargetTotals,
)
from napctl.model.suspension_counts import WAIT_BUCKETS
from napctl.model.window import EmptyPolls
from napctl.service.exposed import REASONS

POLLS = PollTotals(
    softirq=Histogram.of({0: 5, 1: 7, 64: 2, 300: 1}),
    thread=Histogram.of({3: 4}),
    busy_poll=Histogram.of({2: 9}),
    netpoll=Histogram.of({1: 1}),
    empty=EmptyPolls(tx_only=1, while_polling=2, unattributed=2),
)
SUSPENSION = SuspensionTotals(suspensions=9, rescues=2, suspended_ns=5 * 10**9, waits=(1,) * WAIT_BUCKETS)
LATENCY = LatencyHistogram(counts=(1,) * LATENCY_BUCKETS)


def napi(napi_id: int) -> NapiTotals:
    settings = NapiSettings(
        defer_hard_irqs=napi_id % 100, gro_flush_timeout_ns=200_000 + napi_id, irq_suspend_timeout_ns=20_000_000
    )
    return NapiTotals(napi_id=napi_id, polls=POLLS, suspension=SUSPENSION, interrupts=8, settings=settings)


def device(name: str, queues: int = 64, netns: int | None = None) -> DeviceTotals:
    return DeviceTotals(
        device=name,
        netns=netns,
        up=True,
        interface=InterfaceTotals(rx_packets=10, tx_packets=8, rx_dropped=1, rx_missed=2),
        polls=POLLS,
        suspension=SUSPENSION,
        interrupts=44,
        coalescing=Coalescing(
            rx_usecs=20, tx_usecs=50, rx_max_frames=8, tx_max_frames=9, use_adaptive_rx=True, use_adaptive_tx=False
        ),
        napis=tuple(napi(100 + each) for each in range(queues)),
        drift=1,
        conflicts=2,
        changed_unix_ns=10**18,
        protection_step=1,
    )


def target(name: str, verdict: str = "active") -> TargetTotals:
    return TargetTotals(
        target=name,
        attached=True,
        verdict=verdict,
        processes=2,
        cpu_seconds=1.5,
        polls=7,
        packets=9,
        until_read=LATENCY,
        until_reply=LATENCY,
        timer_ns=200_000,
        mode="suspend",
    )


def snapshot(
    devices: tuple[DeviceTotals, ...] = (device("eth0"),),
    targets: tuple[TargetTotals, ...] = (target("nginx"),),
    findings: int = 1,
) -> Snapshot:
    return Snapshot(
        monotonic_ns=5 * 10**9,
        seconds_to_take=0.01,
        started_unix_ns=10**18,
        version="0.2.0",
        kernel="6.18",
        devices=devices,
        targets=targets,
        probes=dict.fromkeys(PROBES, True),
        softirq_ns=10**9,
        thread_seconds=2.0,
        interrupts=5,
        time_squeezes=1,
        backlog_drops=0,
        overload=OverloadTotals(seconds={"crowded": 1.0, "overloaded": 2.5}, late_drops=7),
        findings=tuple(
            FoundRule(rule=f"rule-{number}", device="eth0", severity="cost", count=1) for number in range(findings)
        ),
        findings_monotonic_ns=10**9,
        managers=tuple(OtherManager(name=each.name, pid=9, touches=(Touch(what="rings"),)) for each in KNOWN_MANAGERS),
        policy=PolicyState(
            decisions={DECISIONS[0]: 3},
            errors=1,
            protection_steps={"threads": 2, "nice": 1, "storm_control": 0},
            storm_drops=dict.fromkeys(REASONS, 9),
        ),
        own=OwnUse(cpu_seconds=1.0, resident_bytes=50 << 20, open_files=30),
    )


COUNTS = st.integers(min_value=0, max_value=10**12)
HISTOGRAMS = st.builds(
    lambda counts, more: Histogram(counts=tuple(counts), packets_above=(65 + more) * counts[-1]),
    st.lists(COUNTS, min_size=BUCKETS, max_size=BUCKETS),
    st.integers(min_value=0, max_value=1000),
)
