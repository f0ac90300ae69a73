"""From a plan to changes, and what undoing looks at: the pure part."""

from typing import Any

import pytest
from hypothesis import given
from msgspec.structs import replace

from napctl.change.one_change import altered, side_effects, touched
from napctl.change.undoing_order import undoing_order
from napctl.model.change import Change, CoalescingChange, NapiChange, RingsChange, devices_of
from napctl.model.errors import BadInput
from napctl.model.machine import Coalescing, Device, Machine, Napi, QueueCoalescing, Rings
from napctl.model.plan import Deferral, DevicePlan, Plan, RingSizes, settings
from napctl.model.settings import NapiSettings
from napctl.plan.diff import changes
from tests.strategies import DEVICE_COALESCING


def device(**more: Any) -> Device:
    napis = tuple(
        Napi(napi_id=number, ifindex=2, irq=None, settings=NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0))
        for number in (8193, 8194)
    )
    fields: dict[str, Any] = {
        "coalescing": Coalescing(rx_usecs=3, tx_usecs=8, use_adaptive_rx=True),
        "rings": Rings(rx=256, rx_max=4096, tx=256, tx_max=4096),
        "napis": napis,
    }
    return Device(name="eth0", ifindex=2, up=True, driver="any", **fields | more)


def plan(**blocks: Any) -> Plan:
    planned = DevicePlan(name="eth0", driver="any", rx_queues=2, tx_queues=2, **blocks)
    return Plan(goal="balanced", max_added_latency_ns=50_000, devices=(planned,))


def machine(device: Device) -> Machine:
    return Machine(kernel="6.18", netns=7, devices=(device,), pollers=())


def test_only_what_differs_is_changed() -> None:
    wanted = plan(coalescing=Coalescing(rx_usecs=3, tx_usecs=150), rings=RingSizes(rx=256, tx=512))
    rings, coalescing = changes(wanted, machine(device()))
    assert isinstance(rings, RingsChange)
    assert isinstance(coalescing, CoalescingChange)
    assert dict(settings(rings.after)) == {"tx": 512}
    assert dict(settings(coalescing.after)) == {"tx_usecs": 150}
    assert coalescing.before == device().coalescing


def test_rings_come_before_what_a_restart_of_the_queues_would_lose() -> None:
    wanted = plan(coalescing=Coalescing(tx_usecs=150), rings=RingSizes(tx=512), deferral=Deferral(defer_hard_irqs=9))
    kinds = [type(change) for change in changes(wanted, machine(device()))]
    assert kinds == [RingsChange, CoalescingChange, NapiChange, NapiChange]


def test_rings_are_put_back_first_as_well_then_the_last_change() -> None:
    wanted = plan(coalescing=Coalescing(tx_usecs=150), rings=RingSizes(tx=512), deferral=Deferral(defer_hard_irqs=9))
    found = changes(wanted, machine(device()))
    assert undoing_order(found) == [found[0], found[3], found[2], found[1]]


def test_new_rings_are_no_reason_to_lose_coalescing_unseen() -> None:
    """A driver that starts its queues anew may reset it: what it was is recorded, though nobody asks to change it."""
    rings, coalescing = changes(plan(rings=RingSizes(tx=512)), machine(device()))
    assert isinstance(rings, RingsChange)
    assert isinstance(coalescing, CoalescingChange)
    assert (coalescing.before, touched(coalescing)) == (device().coalescing, [])
    reset = replace(coalescing, found=Coalescing(rx_usecs=3, tx_usecs=0, use_adaptive_rx=True))
    assert side_effects(reset) == ["tx_usecs"]
    (alone,) = changes(plan(rings=RingSizes(tx=512)), machine(device(coalescing=None)))
    assert isinstance(alone, RingsChange)


def test_deferral_is_changed_on_every_napi_instance_that_has_another() -> None:
    first, second = device().napis
    set_already = replace(second, settings=replace(second.settings, defer_hard_irqs=9))
    (change,) = changes(plan(deferral=Deferral(defer_hard_irqs=9)), machine(device(napis=(first, set_already))))
    assert isinstance(change, NapiChange)
    assert (change.napi_id, change.before, change.after) == (
        8193, NapiSettings(defer_hard_irqs=0), NapiSettings(defer_hard_irqs=9)
    )  # fmt: skip


def test_queues_are_changed_one_by_one_where_the_driver_can() -> None:
    queues = tuple(QueueCoalescing(queue=number, coalescing=Coalescing(rx_usecs=3)) for number in range(2))
    wanted = plan(queues=(QueueCoalescing(queue=1, coalescing=Coalescing(rx_usecs=9)),))
    (change,) = changes(wanted, machine(device(queue_coalescing=queues)))
    assert isinstance(change, CoalescingChange)
    assert (change.queue, change.where) == (1, "queue 1 of eth0")
    with pytest.raises(BadInput, match="no coalescing of its own for queue 1"):
        changes(wanted, machine(device()))


def test_a_device_wide_change_does_not_level_queues_that_differ() -> None:
    queues = tuple(QueueCoalescing(queue=number, coalescing=Coalescing(rx_usecs=number)) for number in range(2))
    with pytest.raises(BadInput, match=r"its queues differ in rx-usecs.*\[eth0\.queue\.N\]"):
        changes(plan(coalescing=Coalescing(rx_usecs=9)), machine(device(queue_coalescing=queues)))


def test_a_device_that_has_gone_is_named() -> None:
    with pytest.raises(BadInput, match="eth0: no such network device"):
        changes(plan(), replace(machine(device()), devices=()))


@given(DEVICE_COALESCING, DEVICE_COALESCING)
def test_what_a_change_leaves_makes_the_plan_true(now: Coalescing, planned: Coalescing) -> None:
    found = changes(plan(coalescing=planned), machine(device(coalescing=now)))
    made = now
    for change in found:
        made = replace(made, **dict(settings(change.after)))
    assert all(getattr(made, name) == value for name, value in settings(planned))
    assert changes(plan(coalescing=planned), machine(device(coalescing=made))) == ()
    assert devices_of(found) == (("eth0",) if found else ())


def changed(before: Coalescing, after: Coalescing, found: Coalescing | None) -> Change:
    return CoalescingChange(netns=1, device="eth0", ifindex=2, before=before, after=after, found=found)


BEFORE = Coalescing(rx_usecs=3, tx_usecs=8, use_adaptive_rx=False, use_adaptive_tx=False)
ASKED = Coalescing(rx_usecs=50)


def test_a_value_that_came_out_otherwise_is_altered_and_another_setting_a_side_effect() -> None:
    made = changed(BEFORE, ASKED, replace(BEFORE, rx_usecs=48, use_adaptive_tx=True))
    assert (touched(made), altered(made), side_effects(made)) == (["rx_usecs"], ["rx_usecs"], ["use_adaptive_tx"])


def test_a_change_that_came_out_as_asked_has_neither() -> None:
    made = changed(BEFORE, ASKED, replace(BEFORE, rx_usecs=50))
    assert (altered(made), side_effects(made)) == ([], [])
    assert (altered(changed(BEFORE, ASKED, None)), side_effects(changed(BEFORE, ASKED, None))) == ([], [])


def test_what_adaptive_coalescing_moves_itself_is_nobodys_side_effect() -> None:
    before = replace(BEFORE, use_adaptive_rx=True)
    made = changed(before, Coalescing(tx_usecs=9), replace(before, tx_usecs=9, rx_usecs=64, rx_max_frames=128))
    assert side_effects(made) == []


@given(DEVICE_COALESCING, DEVICE_COALESCING, DEVICE_COALESCING)
def test_nothing_that_differs_goes_unseen_but_what_drifts(
    before: Coalescing, after: Coalescing, found: Coalescing
) -> None:
    made = changed(before, after, found)
    drifting = {
        f"{direction}_{what}"
        for direction in ("rx", "tx") for what in ("usecs", "max_frames")
        if getattr(before, f"use_adaptive_{direction}") or getattr(found, f"use_adaptive_{direction}")
    }  # fmt: skip
    expected = {
        name for name in Coalescing.__struct_fields__
        if getattr(after, name) is None and getattr(before, name) != getattr(found, name)
    }  # fmt: skip
    assert set(side_effects(made)) == expected - drifting
