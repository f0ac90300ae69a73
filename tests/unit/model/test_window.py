"""Promises of the Window: the difference of two readings, and what it claims of empty polls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.model.counts import (
    CounterReading,
    CpuCounts,
    DeviceCounts,
    NapiCounts,
    PollerCounts,
    ProbeCounts,
    SentCounts,
)
from napctl.model.difference import between
from napctl.model.histogram import Histogram
from napctl.model.machine import Device, Napi, Queue
from napctl.model.settings import NapiSettings
from napctl.model.value import from_json, to_json
from napctl.model.window import EmptyPolls, NapiWindow, Window, own_polls

NETNS, IFINDEX, NAPI = 4026531840, 2, 8193
OFF = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0)
DEFERRED = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000, irq_suspend_timeout_ns=0)
OLD_KERNEL = NapiSettings()


def device(settings: NapiSettings, *, bus: str | None = "0000:00:03.0", sends: bool = True) -> Device:
    napi = Napi(napi_id=NAPI, ifindex=IFINDEX, irq=24, settings=settings)
    queues = tuple(
        Queue(ifindex=IFINDEX, kind=kind, index=0, napi_id=NAPI) for kind in (("rx", "tx") if sends else ("rx",))
    )
    return Device(name="eth0", ifindex=IFINDEX, up=True, bus=bus, queues=queues, napis=(napi,))


def counts(
    softirq: dict[int, int],
    *,
    napi_id: int = NAPI,
    busy: dict[int, int] | None = None,
    thread: dict[int, int] | None = None,
) -> NapiCounts:
    pollers = (PollerCounts(pid=7, name="memcached", polls=sum(busy.values()), empty=0, packets=0),) if busy else ()
    return NapiCounts(
        napi_id=napi_id,
        device="eth0",
        ifindex=IFINDEX,
        netns=NETNS,
        instance=napi_id,
        softirq=Histogram.of(softirq),
        thread=Histogram.of(thread or {}),
        busy_poll=Histogram.of(busy or {}),
        pollers=pollers,
    )


def reading(
    *napis: NapiCounts, at_s: float = 0, interrupts: int = 0, lost: int = 0, probe: bool = True
) -> CounterReading:
    return CounterReading(
        monotonic_ns=int(at_s * 1e9),
        unix_ns=int(at_s * 1e9),
        probe=ProbeCounts(napis=napis, cpus=(CpuCounts(cpu=0, net_rx_softirq_ns=int(at_s * 5e8)),), lost_polls=lost)
        if probe
        else None,
        cpus=(CpuCounts(cpu=0, time_squeezes=int(at_s)),),
        interrupts={24: {0: interrupts}},
        devices=(
            DeviceCounts(
                device="eth0",
                ifindex=IFINDEX,
                rx_packets=interrupts,
                tx_packets=0,
                rx_dropped=0,
                tx_dropped=0,
                rx_missed=0,
            ),
        ),
    )


def window(before: CounterReading, after: CounterReading, was: Device, now: Device | None = None) -> Window:
    return between(before, after, devices_before=[was], devices_after=[now or was], netns=NETNS)


def only(found: Window) -> NapiWindow:
    (napi,) = found.napis
    return napi


def empty(settings: NapiSettings, after: NapiCounts, *, bus: str | None = "0000:00:03.0") -> EmptyPolls:
    found = only(window(reading(), reading(after, at_s=1), device(settings, bus=bus))).empty
    assert found is not None
    return found


polls = st.dictionaries(st.integers(0, 100), st.integers(0, 10**9), max_size=8)


@given(polls, polls)
def test_a_window_holds_what_came_between_its_readings(first: dict[int, int], more: dict[int, int]) -> None:
    a = counts(first)
    b = counts({n: first.get(n, 0) + more.get(n, 0) for n in {*first, *more}})
    napi = only(window(reading(a), reading(b, at_s=2, interrupts=9), device(OFF)))
    assert napi.softirq == Histogram.of(more)
    assert napi.interrupts == 9
    assert napi.queues == ("rx0", "tx0")


@given(polls, polls)
def test_windows_in_a_row_sum_to_the_whole(first: dict[int, int], more: dict[int, int]) -> None:
    a, b = counts(first), counts({n: first.get(n, 0) + more.get(n, 0) for n in {*first, *more}})
    start, middle, end = reading(), reading(a, at_s=1), reading(b, at_s=2)
    parts = [only(window(start, middle, device(OFF))).polls, only(window(middle, end, device(OFF))).polls]
    assert parts[0] + parts[1] == only(window(start, end, device(OFF))).polls


def test_empty_softirq_polls_without_deferral_or_busy_polling_are_tx_only() -> None:
    assert empty(OFF, counts({0: 298525, 1: 233080})) == EmptyPolls(tx_only=298525)


def test_empty_polls_under_deferral_are_never_called_tx_only() -> None:
    assert empty(DEFERRED, counts({0: 10, 1: 5})) == EmptyPolls(while_polling=10)


def test_empty_polls_beside_busy_polling_are_never_called_tx_only() -> None:
    assert empty(OFF, counts({0: 10}, busy={0: 3, 1: 1})) == EmptyPolls(while_polling=13)


def test_empty_polls_are_not_called_tx_only_if_deferral_was_on_at_the_beginning() -> None:
    found = window(reading(), reading(counts({0: 10}), at_s=1), device(DEFERRED), device(OFF))
    assert only(found).empty == EmptyPolls(while_polling=10)
    assert only(found).settings_changed


def test_empty_polls_of_a_thread_a_software_device_or_an_old_kernel_are_not_attributed() -> None:
    assert empty(OFF, counts({}, thread={0: 4})) == EmptyPolls(unattributed=4)
    assert empty(OFF, counts({0: 4}), bus=None) == EmptyPolls(unattributed=4)
    assert empty(OLD_KERNEL, counts({0: 4})) == EmptyPolls(unattributed=4)


def test_empty_polls_of_an_instance_that_serves_no_tx_queue_are_not_called_tx_only() -> None:
    found = only(window(reading(), reading(counts({0: 4}), at_s=1), device(OFF, sends=False)))
    assert found.empty == EmptyPolls(unattributed=4)


def test_a_quiet_instance_has_zero_polls_with_the_probe_and_unknown_ones_without() -> None:
    seen = only(window(reading(), reading(at_s=1), device(OFF)))
    assert seen.polls.polls == 0
    assert seen.empty == EmptyPolls()
    unseen = window(reading(probe=False), reading(at_s=1, interrupts=5, probe=False), device(OFF))
    assert only(unseen).softirq is None
    assert only(unseen).empty is None
    assert only(unseen).interrupts == 5
    assert unseen.source == "proc"


def test_a_window_says_how_often_a_process_polled() -> None:
    napi = only(window(reading(), reading(counts({1: 25}, busy={1: 75}), at_s=1), device(DEFERRED)))
    assert own_polls([napi], 7).polls == 75
    assert own_polls([napi], 8).polls == 0


def test_polls_without_a_place_in_the_table_are_named() -> None:
    found = window(reading(lost=2), reading(at_s=1, lost=5), device(OFF))
    assert found.lacks == ("3 polls of NAPI instances that found no place in the probe's table",)


def test_polls_of_other_namespaces_are_kept_without_settings() -> None:
    other = counts({1: 5}, napi_id=9000)
    found = window(reading(), reading(other, at_s=1), device(OFF))
    assert {napi.napi_id: napi.settings for napi in found.napis} == {NAPI: OFF, 9000: None}


def test_a_window_survives_json() -> None:
    found = window(reading(), reading(counts({0: 1, 70: 2}, busy={1: 3}), at_s=1.5), device(DEFERRED))
    assert from_json(to_json(found), Window) == found
    assert found.seconds == 1.5
    assert found.total_per_second("net_rx_softirq_ns") == 5e8


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ((10, 20), (15, 120), (5, 100)),
        ((10, 20), (10, 20), (0, 0)),
        ((10, 20), (15, 19), None),  # a counter fell
        ((10, 20), None, None),
        (None, (10, 20), None),
    ],
)
def test_what_was_sent_is_told_by_protocol_or_not_at_all(
    before: tuple[int, int] | None, after: tuple[int, int] | None, found: tuple[int, int] | None
) -> None:
    then, now, since = (
        SentCounts(tcp_segments=each[0], udp_datagrams=each[1]) if each else None for each in (before, after, found)
    )
    made = window(replace(reading(), sent=then), replace(reading(at_s=1), sent=now), device(OFF))
    assert made.sent == since
