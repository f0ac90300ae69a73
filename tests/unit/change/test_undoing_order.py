"""The order of undoing: suspension ends before who polls stops, and deferral goes last."""

from typing import Any

from msgspec.structs import replace

from napctl.change.undoing_order import (
    SLACK_SECONDS,
    paused_meanwhile,
    resumed_seconds,
    suspension_first,
    undoing_order,
)
from napctl.model.change import Change, ChannelsChange, CoalescingChange, NapiChange, RingsChange, ThreadChange
from napctl.model.machine import Coalescing
from napctl.model.plan import ChannelCounts, RingSizes
from napctl.model.settings import NapiSettings, ThreadSettings
from napctl.model.suspension import Suspension
from tests.unit.attach.steps import attached
from tests.unit.attach.targets import examination, instance, ring

CHANGES = attached(examination(instance(5, {300: 1}), instance(6, {301: 1}))).changes
INTERRUPTS = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0)


def kinds(changes: tuple[Change, ...] | list[Change]) -> list[str]:
    return [type(each).__name__ for each in changes]


def test_who_polls_is_undone_before_its_napi_instance_also_after_a_reset() -> None:
    """Which puts the instance last, as it was made last."""
    after_reset = (*(each for each in CHANGES if not isinstance(each, NapiChange)), CHANGES[0])

    for changes in (CHANGES, after_reset):
        found = kinds(undoing_order(changes))
        assert found == sorted(found)  # EpollChange, NapiChange


def test_deferral_is_undone_while_its_instances_have_their_numbers_and_coalescing_when_the_queues_have_started() -> (
    None
):
    where: dict[str, Any] = {"netns": 1, "device": "eth0", "ifindex": 2}
    channels = ChannelsChange(**where, before=ChannelCounts(combined=4), after=ChannelCounts(combined=8))
    rings = RingsChange(**where, before=RingSizes(rx=512), after=RingSizes(rx=4096))
    coalescing = CoalescingChange(**where, before=Coalescing(rx_usecs=3), after=Coalescing(rx_usecs=50))
    settings: dict[str, Any] = {"before": NapiSettings(defer_hard_irqs=0), "after": NapiSettings(defer_hard_irqs=2)}
    napi = NapiChange(**where, **settings, napi_id=7)
    other = NapiChange(**{**where, "ifindex": 3}, **settings, napi_id=8)
    changes = (channels, rings, coalescing, napi, other)
    assert undoing_order(changes) == [napi, channels, rings, other, coalescing]
    assert undoing_order((rings, coalescing, napi)) == [rings, napi, coalescing]
    thread = ThreadChange(
        **where, napi_id=7, before=ThreadSettings(threaded="disabled"), after=ThreadSettings(threaded="enabled")
    )
    assert undoing_order((channels, thread)) == [thread, channels]


def test_of_each_napi_instance_suspension_is_undone_first_and_the_rest_later() -> None:
    first, rest = suspension_first(undoing_order(CHANGES))

    assert kinds(first) == ["NapiChange"] * 2
    for part, wanted in ((first, (None, None, 20_000_000)), (rest[2:], (100, Suspension().gro_flush_timeout_ns, None))):
        for each in part:
            assert isinstance(each, NapiChange)
            found = each.after.defer_hard_irqs, each.after.gro_flush_timeout_ns, each.after.irq_suspend_timeout_ns
            assert found == wanted
    assert kinds(rest) == ["EpollChange"] * 2 + ["NapiChange"] * 2


def test_while_one_of_several_who_poll_is_taken_back_no_napi_instance_that_stays_is_suspended() -> None:
    napis = [each for each in CHANGES if isinstance(each, NapiChange)]
    (one, _other) = (each for each in CHANGES if not isinstance(each, NapiChange))

    for undone, staying in (((one,), napis), ((one, napis[0]), napis[1:])):
        paused = paused_meanwhile(undone, CHANGES)
        assert [each.where for each in paused] == [each.where for each in staying]
        assert all(isinstance(each, NapiChange) and each.after.gro_flush_timeout_ns is None for each in paused)
    assert paused_meanwhile(napis[:1], CHANGES) == []


def test_without_anybody_who_polls_nothing_is_taken_apart() -> None:
    deferral = [each for each in CHANGES if isinstance(each, NapiChange)]

    assert suspension_first(deferral) == ([], deferral)


def test_what_was_killed_on_its_way_to_interrupts_may_still_be_suspended() -> None:
    changes = [
        replace(each, after=INTERRUPTS, leaving=each.after) if isinstance(each, NapiChange) else each
        for each in CHANGES
    ]  # fmt: skip

    assert kinds(suspension_first(changes)[0]) == ["NapiChange"] * 2
    assert resumed_seconds(changes) == 0.02 + SLACK_SECONDS


def test_nobody_waits_for_longer_than_a_tenth_of_a_second() -> None:
    ten_seconds = replace(Suspension().napi, irq_suspend_timeout_ns=10_000_000_000)
    long = [replace(each, after=ten_seconds) for each in CHANGES if isinstance(each, NapiChange)]

    assert resumed_seconds(long) == 0.1 + SLACK_SECONDS
    assert resumed_seconds([each for each in CHANGES if not isinstance(each, NapiChange)]) == 0


def test_rings_stop_polling_before_their_napi_instances_lose_the_deferral() -> None:
    changes = attached(examination(rings=[ring(300)])).changes

    for made in (changes, changes[::-1]):  # a reset puts the instance last
        assert kinds(undoing_order(made)) == ["IoUringChange", "NapiChange"]
    assert suspension_first(undoing_order(changes)) == ([], undoing_order(changes))
    assert resumed_seconds(changes) == 0
