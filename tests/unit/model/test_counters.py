"""Promises of counters: what wraps goes on, what was set back is a gap, and nothing ever comes out negative."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.kernel import interrupts
from napctl.model.counters import MOST_PER_SECOND, U32, grown, grown_u32
from napctl.model.counts import CounterReading, CpuCounts, DeviceCounts, QueueCounts
from napctl.model.difference import between
from napctl.model.machine import Device, Napi
from napctl.model.settings import NapiSettings
from napctl.model.window import Window

U32S, U64S = st.integers(0, U32 - 1), st.integers(0, 2**64 - 1)
SECONDS = st.floats(1e-6, 200)
"""Beyond 214 s a CPU might have counted all of 2^32."""

BEFORE = """\
           CPU0       CPU2       CPU3
 10: 3287008667 3310445093 3301386305     GICv3  27 Level     arch_timer
 52: 4294900000          0          0  ITS-PCI-MSIX-0000:01:00.0   1 Edge      mlx5_comp0@pci:0000:01:00.0
 53:          0 1000000000          0  ITS-PCI-MSIX-0000:01:00.0   2 Edge      mlx5_comp1@pci:0000:01:00.0
IPI0:  25000000   25000000   25000000       Rescheduling interrupts
ERR:          0
"""
"""/proc/interrupts of an ARM64 machine with CPU 1 offline; a second later line 52 has wrapped."""
AFTER = """\
           CPU0       CPU2       CPU3
 10: 3287010000 3310446000 3301387000     GICv3  27 Level     arch_timer
 52:      32704          0          0  ITS-PCI-MSIX-0000:01:00.0   1 Edge      mlx5_comp0@pci:0000:01:00.0
 53:          0 1000100000          0  ITS-PCI-MSIX-0000:01:00.0   2 Edge      mlx5_comp1@pci:0000:01:00.0
IPI0:  25001000   25001000   25001000       Rescheduling interrupts
ERR:          0
"""


@given(U64S, U64S)
def test_a_counter_that_fell_is_a_gap(before: int, after: int) -> None:
    assert grown(before, after) == (after - before if after >= before else None)
    assert grown(None, after) is grown(before, None) is None


@given(U32S, st.data(), SECONDS)
def test_a_wrap_of_32_bits_is_reckoned_through(before: int, data: st.DataObject, seconds: float) -> None:
    most = min(U32 - 1, int(MOST_PER_SECOND * seconds))
    more = data.draw(st.integers(0, most))
    after = (before + more) % U32
    assert grown_u32(before, after, seconds) == more or (after < before and more >= MOST_PER_SECOND * seconds)


@given(U32S, U32S, SECONDS)
def test_a_fall_that_no_wrap_explains_is_a_gap(before: int, after: int, seconds: float) -> None:
    found = grown_u32(before, after, seconds)
    if after < before and U32 - before + after >= MOST_PER_SECOND * seconds:
        assert found is None
    else:
        assert found is not None
        assert 0 <= found < U32


def table(text: str, proc: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[int, int]]:
    (proc / "interrupts").write_text(text)
    monkeypatch.setattr(interrupts, "PROC", proc)
    return interrupts.counts()


def device(*irqs: int) -> Device:
    napis = tuple(Napi(napi_id=900 + irq, ifindex=2, irq=irq, settings=NapiSettings()) for irq in irqs)
    return Device(name="eth0", ifindex=2, up=True, driver="mlx5_core", bus="0000:01:00.0", napis=napis)


def link(**counts: int) -> DeviceCounts:
    none = DeviceCounts(device="eth0", ifindex=2, rx_packets=0, tx_packets=0, rx_dropped=0, tx_dropped=0, rx_missed=0)
    return replace(none, **counts)


def reading(seconds: float, cpus: tuple[CpuCounts, ...] = (), **fields: object) -> CounterReading:
    made = CounterReading(
        monotonic_ns=round(seconds * 1e9), unix_ns=0, probe=None, cpus=cpus, interrupts={}, devices=(link(),)
    )
    return replace(made, **fields)


def window(before: CounterReading, after: CounterReading, of: Device) -> Window:
    return between(before, after, devices_before=[of], devices_after=[of], netns=1)


def test_an_interrupt_line_that_wraps_on_one_cpu_is_counted_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = tuple(CpuCounts(cpu=cpu) for cpu in (0, 2, 3))
    before = reading(0, cpus, interrupts=table(BEFORE, tmp_path, monkeypatch))
    after = reading(1, cpus, interrupts=table(AFTER, tmp_path, monkeypatch))
    found = window(before, after, device(10, 52, 53))

    assert [napi.interrupts for napi in found.napis] == [1333 + 907 + 695, 100_000, 100_000]
    assert [cpu.interrupts for cpu in found.cpus] == [1333 + 100_000, 907 + 100_000, 695]


def test_an_interrupt_line_that_was_freed_and_taken_again_is_a_gap() -> None:
    cpus = (CpuCounts(cpu=0), CpuCounts(cpu=1))
    before = reading(0, cpus, interrupts={30: {0: 5_000_000, 1: 0}, 31: {0: 7, 1: 7}})
    after = reading(1, cpus, interrupts={30: {0: 12, 1: 0}, 31: {0: 8, 1: 9}})
    found = window(before, after, device(30, 31))

    assert [napi.interrupts for napi in found.napis] == [None, 3]
    assert [cpu.interrupts for cpu in found.cpus] == [None, 2]
    assert found.total_per_second("interrupts") is None


def test_softirqs_and_the_backlog_wrap_too() -> None:
    before = (CpuCounts(cpu=0, net_rx_softirqs=U32 - 1, time_squeezes=U32 - 2, backlog_drops=70),)
    after = (CpuCounts(cpu=0, net_rx_softirqs=9, time_squeezes=1, backlog_drops=3),)
    (cpu,) = window(reading(0, before), reading(1, after), device()).cpus

    assert (cpu.net_rx_softirqs, cpu.time_squeezes, cpu.backlog_drops) == (10, 3, None)


def test_counters_that_a_link_flap_sets_back_are_a_gap_that_is_told() -> None:
    queue = QueueCounts(kind="rx", index=0, packets=800, bytes=64_000)
    before = reading(0, devices=(replace(link(rx_packets=900, rx_missed=40, tx_packets=5), queues=(queue,)),))
    queue = QueueCounts(kind="rx", index=0, packets=10, bytes=70_000)
    after = reading(1, devices=(replace(link(rx_packets=12, rx_missed=0, tx_packets=9), queues=(queue,)),))
    found = window(before, after, device())
    (counts,) = found.devices

    assert (counts.rx_packets, counts.rx_missed, counts.tx_packets, counts.rx_dropped) == (None, None, 4, 0)
    assert counts.queues is not None
    assert (counts.queues[0].packets, counts.queues[0].bytes) == (None, 6000)
    assert "counts of eth0: they were set back in this window" in found.lacks


COUNTS = st.builds(
    DeviceCounts, device=st.just("eth0"), ifindex=st.just(2), queues=st.none(),
    **dict.fromkeys(("rx_packets", "tx_packets", "rx_dropped", "tx_dropped", "rx_missed"), U64S),
)  # fmt: skip
CPUS = st.builds(CpuCounts, cpu=st.just(0), net_rx_softirqs=U32S, time_squeezes=U32S, backlog_drops=U32S)
READINGS = st.builds(
    reading,
    SECONDS,
    st.tuples(CPUS),
    devices=st.tuples(COUNTS),
    interrupts=st.dictionaries(st.just(30), st.dictionaries(st.integers(0, 2), U32S)),
)


@given(READINGS, READINGS)
def test_no_count_of_a_window_is_negative_whatever_was_read(before: CounterReading, after: CounterReading) -> None:
    after = replace(after, monotonic_ns=before.monotonic_ns + after.monotonic_ns)
    found = window(before, after, device(30))
    rows = [*found.cpus, *found.devices, *found.napis]
    names = ("interrupts", "net_rx_softirqs", "time_squeezes", "backlog_drops", "rx_packets", "tx_packets",
             "rx_dropped", "tx_dropped", "rx_missed")  # fmt: skip
    values = [getattr(row, name, None) for row in rows for name in names]
    assert all(value >= 0 for value in values if value is not None)
