"""When what was refused of the devices is tried again: in its time, or at once after something has happened to one."""

from napctl.change.renewal import object_of
from napctl.model.change import CoalescingChange
from napctl.model.errors import Unsupported
from napctl.model.machine import Coalescing
from napctl.service.device_refusals import LOOKING, DeviceRefusals


def asked(device: str, ifindex: int) -> CoalescingChange:
    before, after = Coalescing(rx_usecs=3), Coalescing(rx_usecs=5)
    return CoalescingChange(netns=1, device=device, ifindex=ifindex, before=before, after=after)


ONE, OTHER = asked("eth0", 2), asked("eth1", 3)


def refused(refusals: DeviceRefusals, now: float) -> None:
    """Both, and the look at them all."""
    error = Unsupported("the driver refuses")
    refusals.settle([ONE, OTHER], {object_of(each): (each, error) for each in (ONE, OTHER)}, now)
    refusals.could_not_look(error, now)


def test_what_happens_to_a_device_lets_what_was_refused_of_it_be_tried_at_once_and_no_other() -> None:
    told: list[str] = []
    refusals = DeviceRefusals(lambda _device, line, *_: told.append(line))
    for now in (0, 10, 20):
        refused(refusals, now)
    assert refusals.due([ONE, OTHER], 21) == []
    assert not refusals.may_look(21)

    refusals.try_anew("eth0")
    assert refusals.due([ONE, OTHER], 21) == [ONE]
    assert refusals.may_look(21)
    assert (refusals.count("eth0"), refusals.count("eth1")) == (1, 1)

    refused(refusals, 24)
    assert [each.rsplit(" ", 1)[1] for each in told[-3:]] == ["1s", "8s", "1s"]
    assert told[-1].startswith(f"{LOOKING}: ")


def test_after_what_nobody_can_name_all_of_it_is_tried() -> None:
    refusals = DeviceRefusals(lambda *_: None)
    refused(refusals, 0)
    refusals.try_anew()
    assert refusals.due([ONE, OTHER], 0.5) == [ONE, OTHER]
    assert refusals.may_look(0.5)


def test_what_is_not_due_is_not_told_again() -> None:
    told: list[str] = []
    refusals = DeviceRefusals(lambda _device, line, *_: told.append(line))
    refused(refusals, 0)
    assert len(told) == 3
    refused(refusals, 0.5)
    assert len(told) == 3, "the seconds that are left are no news"
    refused(refusals, 1)
    assert len(told) == 6
