"""A reset by somebody else lets what was refused be tried at once; one of napctl's own doing never does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.attach.follow_conflicts import RESETS
from napctl.attach.objections import RESET_SECONDS
from napctl.kernel.monitor import What
from napctl.service.device_resets import EVERY_DEVICE, DeviceResets

ETH0, ETH1 = 2, 3


@pytest.mark.parametrize("what", [*RESETS, "lost"])
def test_a_reset_is_somebody_elses_unless_something_of_any_device_was_just_set(what: What) -> None:
    resets = DeviceResets()
    ifindex = EVERY_DEVICE if what == "lost" else ETH0
    assert resets.hear(what, ifindex, 100.0)
    resets.set_now(200.0)
    assert not resets.hear(what, ifindex, 200.1)
    assert resets.hear(what, ifindex, 200.0 + RESET_SECONDS)


@given(st.floats(0, RESET_SECONDS - 0.1), st.floats(0, 3600))
def test_a_link_that_napctl_took_down_is_its_own_doing_until_it_is_up_however_long_that_takes(
    down_s: float, up_s: float
) -> None:
    resets = DeviceResets()
    resets.set_now(100.0)
    down, up = 100.0 + down_s, 100.0 + down_s + up_s
    assert not resets.hear("link down", ETH0, down)
    assert not resets.hear("link up", ETH0, up)
    assert resets.was(ETH0, up)
    assert not resets.hear("napi ids", ETH0, up), "they are told after the link"
    later = up + RESET_SECONDS
    assert not resets.hear("link down", ETH0, later)
    assert resets.hear("link up", ETH0, later + 12)


def test_a_driver_that_resets_its_device_for_what_it_refuses_is_asked_ever_later() -> None:
    """Tried again whenever somebody else has reset it, it would be asked for ever."""
    resets, now, asked_at = DeviceResets(), 100.0, []
    pause = 1.0
    while now < 10_000:
        asked_at.append(now)
        resets.set_now(now)
        resets.hear("link down", ETH0, now + 0.5)
        up = now + 12
        if resets.hear("link up", ETH0, up):
            pause = 0.0
        now, pause = max(up, now + pause), min(2 * pause, 300.0)
    assert len(asked_at) < 50


def test_what_is_lost_within_some_seconds_of_a_reset_was_lost_by_it() -> None:
    resets = DeviceResets()
    resets.hear("link up", ETH0, 100.0)
    assert [resets.was(each, 104.0) for each in (ETH0, ETH1)] == [True, False]
    assert not resets.was(ETH0, 100.0 + RESET_SECONDS)
    resets.all_were(200.0)
    assert resets.was(ETH1, 201.0)


def test_a_device_that_has_gone_leaves_nothing_to_another_with_its_number() -> None:
    resets = DeviceResets()
    resets.set_now(100.0)
    resets.hear("link down", ETH0, 100.1)
    resets.hear("device gone", ETH0, 101.0)
    assert resets.hear("link up", ETH0, 100.1 + RESET_SECONDS)


@pytest.mark.parametrize("up_s", [2.0, 12.0])
def test_two_devices_that_reset_together_are_asked_ever_later(up_s: float) -> None:
    """Two ports of one adapter, or a NIC and its bond, each with something that is refused: what is tried of the one
    takes both down."""
    resets, asked_at = DeviceResets(), list[float]()
    due, pauses = dict.fromkeys((ETH0, ETH1), 100.0), dict.fromkeys((ETH0, ETH1), 1.0)
    while (now := min(due.values())) < 10_000:
        tried = min(due, key=lambda each: due[each])
        asked_at.append(now)
        resets.set_now(now)
        up = now + up_s
        due[tried], pauses[tried] = now + pauses[tried], min(2 * pauses[tried], 300.0)
        for each in due:
            resets.hear("link down", each, now + 0.5)
        for each in due:
            if resets.hear("link up", each, up) or resets.hear("napi ids", each, up):
                due[each], pauses[each] = up, 1.0
            due[each] = max(due[each], up)
    assert len(asked_at) < 100


@pytest.mark.parametrize("lost", [True, False], ids=["notices lost", "nobody listened"])
def test_where_it_may_not_be_told_that_a_link_is_up_it_is_not_waited_for(lost: bool) -> None:
    """The next reset is not napctl's."""
    resets = DeviceResets()
    resets.set_now(100.0)
    resets.hear("link down", ETH0, 100.1)
    if lost:
        resets.hear("lost", EVERY_DEVICE, 101.0)
    else:
        resets.forget_links()
    assert resets.hear("link up", ETH0, 100.1 + RESET_SECONDS)
