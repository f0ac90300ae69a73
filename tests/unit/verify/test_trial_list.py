"""Promises of what verify tries: what delays, each setting once, against the value that was there before."""

import pytest
from msgspec.structs import replace

from napctl.model.change import CoalescingChange, NapiChange, Transaction
from napctl.model.counts import Deliveries, DeviceCounts
from napctl.model.histogram import Histogram
from napctl.model.machine import Coalescing, Device, Machine, Napi, Queue, QueueCoalescing, Rings
from napctl.model.plan import Deferral, DevicePlan, Plan, RingSizes
from napctl.model.settings import NapiSettings
from napctl.model.verdict import Verdict
from napctl.model.window import EmptyPolls, NapiWindow, Window
from napctl.verify.trial import DEFERRAL, Sample, SettingTrial, Statistic, sample, statistic_of
from napctl.verify.trial_list import (
    Wanted,
    changes_to,
    complete,
    of_machine,
    of_plan,
    plan_for,
    plan_of_devices,
    trial_of,
)
from napctl.verify.verify import without_link

NETNS = 4026531840
OFF = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0)
DEFERS = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000, irq_suspend_timeout_ns=0)
SUSPENDS = replace(DEFERS, irq_suspend_timeout_ns=20_000_000)
SET = Coalescing(rx_usecs=50, rx_max_frames=0, tx_usecs=0, tx_max_frames=1, use_adaptive_rx=False, pkt_rate_low=9)


def device(coalescing: Coalescing | None = SET, *settings: NapiSettings, queues: tuple[Coalescing, ...] = ()) -> Device:
    return Device(
        name="eth0",
        ifindex=2,
        up=True,
        bus="0000:00:03.0",
        coalescing=coalescing,
        queue_coalescing=tuple(QueueCoalescing(queue=n, coalescing=each) for n, each in enumerate(queues)),
        rings=Rings(rx=512, tx=512),
        queues=tuple(
            Queue(ifindex=2, kind=kind, index=n, napi_id=100 + n) for n in range(len(settings)) for kind in ("rx", "tx")
        ),
        napis=tuple(Napi(napi_id=100 + n, ifindex=2, irq=30 + n, settings=each) for n, each in enumerate(settings)),
    )


def machine(*devices: Device) -> Machine:
    return Machine(kernel="", netns=NETNS, devices=devices, pollers=())


def wanted(*devices: Device) -> list[tuple[int | None, str, object]]:
    return [(each.queue, each.setting, each.value) for each in of_machine(machine(*devices))]


def test_of_a_device_all_that_delays_is_tried_and_nothing_else() -> None:
    assert wanted(device()) == [(None, "rx_usecs", 50)]
    assert wanted(device(None)) == []
    assert wanted(device(Coalescing(rx_usecs=0, rx_max_frames=64, tx_usecs=8, use_adaptive_tx=False))) == [
        (None, "rx_max_frames", 64),
        (None, "tx_usecs", 8),
    ]


def test_what_adaptive_coalescing_moves_is_not_tried_but_adaptive_coalescing_is() -> None:
    adaptive = Coalescing(rx_usecs=50, rx_max_frames=32, use_adaptive_rx=True, tx_usecs=8)
    assert wanted(device(adaptive)) == [(None, "tx_usecs", 8), (None, "use_adaptive_rx", True)]


def test_queues_that_differ_are_tried_one_by_one() -> None:
    other = replace(SET, rx_usecs=100)
    assert wanted(device(SET, queues=(SET, SET))) == [(None, "rx_usecs", 50)]
    assert wanted(device(SET, queues=(SET, other))) == [(0, "rx_usecs", 50), (1, "rx_usecs", 100)]


def test_deferral_is_tried_as_one_setting_and_left_alone_where_it_belongs_to_an_attachment() -> None:
    two = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000)
    assert wanted(device(None, DEFERS, DEFERS)) == [(None, DEFERRAL, two)]
    assert wanted(device(None, OFF)) == []
    assert wanted(device(None, SUSPENDS)) == []


def plan(**blocks: object) -> Plan:
    planned = DevicePlan(name="eth0", driver=None, rx_queues=1, tx_queues=1, **blocks)  # type: ignore[arg-type]
    return Plan(goal="throughput", max_added_latency_ns=0, devices=(planned,))


FULL = plan(
    coalescing=Coalescing(rx_usecs=100, use_adaptive_rx=False),
    queues=(QueueCoalescing(queue=1, coalescing=Coalescing(rx_usecs=30)),),
    rings=RingSizes(rx=1024),
    deferral=Deferral(gro_flush_timeout_ns=50_000),
)


def test_of_a_plan_every_setting_is_tried() -> None:
    assert [(each.queue, each.setting) for each in of_plan(FULL)] == [
        (None, "rx_usecs"),
        (None, "use_adaptive_rx"),
        (1, "rx_usecs"),
        (None, DEFERRAL),
        (None, "rx_ring"),
    ]


def test_what_is_put_in_force_is_what_was_asked_for_but_for_the_rings() -> None:
    again = plan_for(list(of_plan(FULL)), FULL)
    assert again == replace(FULL, devices=(replace(FULL.devices[0], rings=None),))


def test_a_half_of_deferral_is_completed_by_what_the_device_has() -> None:
    (half,) = (each for each in of_plan(FULL) if each.setting == DEFERRAL)
    assert complete(half, device(SET, DEFERS)).value == NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=50_000)


USECS = Wanted(device="eth0", setting="rx_usecs", value=50)


def journalled(before: Coalescing, after: Coalescing) -> Transaction:
    change = CoalescingChange(netns=NETNS, device="eth0", ifindex=2, before=before, after=after)
    return Transaction(kind="apply", state="applied", boot_id="", made_unix_ns=0, name="eth0", changes=(change,))


def tried(each: Wanted, before: Device, now: Device, *live: Transaction) -> SettingTrial:
    found = trial_of(each, before, now, live, NETNS)
    assert isinstance(found, SettingTrial)
    return found


def test_the_other_arm_is_what_was_there_before_then_what_the_journal_knows_then_the_neutral_value() -> None:
    applied = journalled(replace(SET, rx_usecs=8), Coalescing(rx_usecs=50))

    assert tried(USECS, device(replace(SET, rx_usecs=3)), device(), applied).off == 3
    assert tried(USECS, device(), device(), applied).off == 8
    assert tried(USECS, device(), device()).off == 0
    assert tried(USECS, device(), device()).mode is None
    before, now = (replace(device(replace(SET, rx_usecs=usecs)), driver="igb") for usecs in (3, 50))
    assert tried(USECS, before, now).mode == 3, "its own moderation, not 3 us"
    frames = Wanted(device="eth0", setting="rx_max_frames", value=64)
    set_to = device(replace(SET, rx_max_frames=64))
    assert tried(frames, set_to, set_to).off == 1


def test_a_value_that_the_driver_altered_is_compared_as_it_reads_back() -> None:
    found = tried(replace(USECS, value=500), device(), device(replace(SET, rx_usecs=64)))
    assert (found.wanted, found.on, found.off) == (500, 64, 50)


@pytest.mark.parametrize(
    ("each", "outcome"),
    [
        (Wanted(device="eth0", setting="rx_ring", value=512), "accepted"),
        (Wanted(device="eth0", setting="pkt_rate_low", value=9), "accepted"),
        (Wanted(device="eth0", setting="pkt_rate_low", value=10), "clamped"),
        (Wanted(device="eth0", setting="tx_usecs", value=0), "accepted"),
        (Wanted(device="eth0", setting="rx_usecs_irq", value=5), "refused"),
    ],
)
def test_what_the_wire_cannot_show_is_judged_by_reading_back_and_says_so(each: Wanted, outcome: str) -> None:
    found = trial_of(each, device(), device(), (), NETNS)
    assert isinstance(found, Verdict)
    assert found.outcome == outcome
    assert found.estimate is None


def test_one_setting_is_toggled_and_nothing_else() -> None:
    here = device(SET, DEFERS, SUSPENDS)
    (change,) = changes_to(0, tried(USECS, here, here), here, NETNS)
    assert isinstance(change, CoalescingChange)
    assert (change.before, change.after) == (SET, Coalescing(rx_usecs=0))

    deferral = Wanted(device="eth0", setting=DEFERRAL, value=replace(DEFERS, irq_suspend_timeout_ns=None))
    trial = tried(deferral, here, here)
    (napi,) = changes_to(trial.off, trial, here, NETNS)
    assert isinstance(napi, NapiChange)
    assert napi.napi_id == 100, "the other one is attached"


def row(n: int, *, interrupts: int | None = 10, irq: int | None = None, tx_only: int = 0) -> NapiWindow:
    return NapiWindow(
        napi_id=100 + n,
        device="eth0",
        ifindex=2,
        netns=NETNS,
        queues=(f"rx{n}", f"tx{n}"),
        settings=OFF,
        irq=30 + n if irq is None else irq,
        interrupts=interrupts,
        softirq=Histogram.of({1: 20, 0: 5}),
        empty=EmptyPolls(tx_only=tx_only),
    )


def window(*rows: NapiWindow, source: str = "bpf") -> Window:
    counts = DeviceCounts(
        device="eth0", ifindex=2, rx_packets=100, tx_packets=60, rx_dropped=1, tx_dropped=2, rx_missed=3
    )
    return Window(source=source, lacks=(), started_unix_ns=0, seconds=1, napis=rows, cpus=(), devices=(counts,))


def test_the_statistic_is_the_best_that_driver_and_kernel_offer() -> None:
    here = device(SET, OFF)
    trial = tried(USECS, here, here)
    sends = replace(trial, setting="tx_usecs")

    assert statistic_of(trial, here, window(row(0)), deliveries=False) == "interrupts per packet"
    assert statistic_of(trial, here, window(row(0, interrupts=None)), deliveries=False) == "polls per packet"
    assert statistic_of(trial, device(SET), window(), deliveries=True) == "runs per packet"
    assert statistic_of(trial, device(SET), window(), deliveries=False) is None
    assert statistic_of(sends, here, window(row(0)), deliveries=False) == "TX-only polls per TX packet"
    assert statistic_of(sends, device(SET, DEFERS), window(row(0)), deliveries=False) == "interrupts per TX packet"
    assert statistic_of(sends, here, window(row(0), source="proc"), deliveries=False) == "interrupts per TX packet"


def counted(trial: SettingTrial, statistic: Statistic, seen: Window, deliveries: Deliveries | None = None) -> Sample:
    found = sample(trial, statistic, seen, deliveries)
    assert found is not None
    return found


def test_counts_are_of_the_queues_that_the_setting_is_about() -> None:
    here = device(SET, OFF, OFF)
    trial = tried(USECS, here, here)
    found = counted(trial, "interrupts per packet", window(row(0), row(1, interrupts=7)))
    one = counted(replace(trial, queue=1), "interrupts per packet", window(row(0), row(1, interrupts=7)))

    assert (found.interrupts, found.per_packet.events, found.per_packet.per) == (17, 17, 40)
    assert (one.interrupts, one.per_packet.events, one.per_packet.per) == (7, 7, 20)
    assert found.drops == 6


def test_an_interrupt_that_two_instances_share_is_counted_once() -> None:
    here = device(SET, OFF, OFF)
    found = counted(tried(USECS, here, here), "interrupts per packet", window(row(0, irq=30), row(1, irq=30)))

    assert (found.interrupts, found.per_packet.events, found.per_packet.per) == (10, 10, 40)


def test_without_a_probe_packets_are_those_of_the_device() -> None:
    here = device(SET, OFF)
    found = counted(tried(USECS, here, here), "interrupts per packet", window(row(0), source="proc"))

    assert (found.per_packet.events, found.per_packet.per) == (10, 100)


def test_sending_is_judged_by_the_polls_that_found_completions_alone() -> None:
    here = device(SET, OFF)
    trial = replace(tried(USECS, here, here), setting="tx_usecs")
    found = counted(trial, "TX-only polls per TX packet", window(row(0, tx_only=5)))

    assert (found.per_packet.events, found.per_packet.per, found.tx_only) == (5, 60, 5)


def test_a_device_without_instances_is_judged_by_its_runs() -> None:
    here = device(SET)
    found = counted(tried(USECS, here, here), "runs per packet", window(), Deliveries(packets=90, runs=3))

    assert (found.per_packet.events, found.per_packet.per, found.runs) == (3, 90, 3)


def test_a_window_in_which_a_counter_was_set_back_says_nothing() -> None:
    here = device(SET, OFF)
    trial, whole = tried(USECS, here, here), window(row(0))
    (counts,) = whole.devices

    assert sample(trial, "interrupts per packet", whole) is not None
    for name in ("rx_packets", "tx_packets", "rx_dropped", "tx_dropped", "rx_missed"):
        fell = replace(whole, devices=(replace(counts, **{name: None}),))
        assert sample(trial, "polls per packet", fell) is None
    assert sample(trial, "polls per packet", replace(whole, devices=())) is None
    assert sample(trial, "interrupts per packet", window(row(0, interrupts=None))) is None
    assert sample(tried(USECS, device(SET), device(SET)), "runs per packet", window()) is None


def test_an_empty_plan_of_devices_changes_nothing() -> None:
    assert list(of_plan(plan_of_devices(machine(device())))) == []


def test_a_device_that_no_packet_can_pass_is_told_with_the_reason() -> None:
    nic = Device(name="eth0", ifindex=2, up=True, bus="0000:00:03.0")
    tun = Device(name="tun0", ifindex=3, up=True)
    down = Device(name="eth1", ifindex=4, up=False)
    assert without_link([nic, tun], {2, 3}) == {}
    assert without_link([nic, down], {2, 4}) == {"eth1": "eth1 is down (ip link set eth1 up)"}
    assert without_link([nic, tun], {3}) == {"eth0": "eth0 has no carrier: no cable, or nobody at its other end"}
