"""What a policy wants of devices: goals below what is written outright, within bounds, and nobody else's settings."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.change.one_change import drifts
from napctl.model.change import Change, ChannelsChange, CoalescingChange, NapiChange, RingsChange
from napctl.model.machine import Channels, Coalescing, Device, Machine, Queue, QueueUse, Rings
from napctl.model.plan import ChannelCounts, Deferral, RingSizes, settings
from napctl.model.policy import DeviceEntry, Origin
from napctl.service.device_drift import device_drift
from napctl.service.device_plan import WantedChanges, setting_key, wanted_changes
from tests.strategies import GOALS, machines
from tests.unit.service.test_device_drift import NIC, entry, machine, napi


def blocks(found: WantedChanges) -> dict[str, dict[str, Any]]:
    return {each.where: dict(settings(each.after)) for each in found.changes}


def made(device: Device, changes: Sequence[Change]) -> Device:
    """As a driver that does what it is told has it afterwards."""
    for change in changes:
        values = dict(settings(change.after))
        match change:
            case CoalescingChange():
                device = replace(device, coalescing=replace(device.coalescing or Coalescing(), **values))
            case RingsChange():
                device = replace(device, rings=replace(device.rings or Rings(), **values))
            case ChannelsChange():
                device = replace(device, channels=replace(device.channels or Channels(), **values))
            case NapiChange():
                napis = [
                    replace(each, settings=replace(each.settings, **values)) if each.napi_id == change.napi_id else each
                    for each in device.napis
                ]
                device = replace(device, napis=tuple(napis))
    return device


def found_by_driver(change: Change) -> Change:
    if isinstance(change, NapiChange):
        return change
    return replace(change, found=replace(change.before, **dict(settings(change.after))))


def test_what_is_written_outright_wins_over_what_a_goal_proposes() -> None:
    goal = entry(goal="balanced", max_added_latency_ns=30_000)
    assert blocks(wanted_changes([goal], machine())) == {"eth0": {"rx_usecs": 30, "tx_usecs": 125}}
    both = [entry(coalescing=Coalescing(rx_usecs=20)), goal]
    found = wanted_changes(both, machine())
    assert blocks(found) == {"eth0": {"rx_usecs": 20, "tx_usecs": 125}}
    assert found.wanted == {(2, "rx_usecs"), (2, "tx_usecs")}


def test_of_several_entries_the_last_that_has_a_setting_wins() -> None:
    entries = [
        entry(1, all=True, coalescing=Coalescing(rx_usecs=40, tx_usecs=100)),
        entry(2, driver="mlx5_core", coalescing=Coalescing(rx_usecs=30)),
        entry(3, goal="efficiency"),
    ]
    assert blocks(wanted_changes(entries, machine())) == {"eth0": {"rx_usecs": 30, "tx_usecs": 100}}


def test_of_a_device_of_which_another_has_a_queue_nothing_is_set() -> None:
    lease = QueueUse(kind="lease", ifindex=8, queue=1, netns_id=None)
    ours = replace(NIC, queues=(Queue(ifindex=2, kind="rx", index=3, napi_id=None, uses=(lease,)),))
    found = wanted_changes([entry(coalescing=Coalescing(rx_usecs=20))], machine(ours))
    assert not found.changes
    assert found.undecided == {2}
    assert found.problems["eth0"].startswith("rx3 of eth0 is leased to queue 1 of interface 8")


@given(machines(), GOALS)
def test_once_made_a_goal_wants_what_it_has_proposed_and_nothing_else(found: Machine, goal: Any) -> None:
    """Though of what is in force it would propose nothing: it is not put back for that."""
    entries = [DeviceEntry(origin=Origin(file="p", line=1), name=each.name, goal=goal) for each in found.devices]
    first = wanted_changes(entries, found)
    after = replace(
        found,
        devices=tuple(
            made(each, [one for one in first.changes if getattr(one, "ifindex", 0) == each.ifindex])
            for each in found.devices
        ),
    )
    again = wanted_changes(entries, after, in_force=[found_by_driver(each) for each in first.changes])
    assert again.changes == ()
    assert again.wanted == first.wanted
    if not first.problems:
        coalescing = {each.name: each.coalescing for each in after.devices}
        differences = device_drift(entries, after).differences
        assert all(drifts(each.setting or "", coalescing.get(each.where)) for each in differences)


def test_beyond_a_bound_nothing_of_the_device_is_set_and_it_is_said_why() -> None:
    found = wanted_changes([entry(coalescing=Coalescing(rx_usecs=5000, tx_usecs=9))], machine())
    assert found.changes == ()
    assert "rx-usecs 5000 is above 50: " in found.problems["eth0"]
    assert found.undecided == {2}
    unknown = replace(NIC, speed_mbps=None)
    found = wanted_changes([entry(coalescing=Coalescing(tx_usecs=9))], machine(unknown))
    assert "tx-usecs 9 has no known bound" in found.problems["eth0"]


def test_what_is_left_out_is_left_alone() -> None:
    both = [entry(coalescing=Coalescing(rx_usecs=50, tx_usecs=9))]
    found = wanted_changes(both, machine(), left={"eth0 rx-usecs"})
    assert blocks(found) == {"eth0": {"tx_usecs": 9}}
    assert (2, "rx_usecs") in found.wanted
    found = wanted_changes(both, machine(), left={"eth0 rx-usecs", "eth0 tx-usecs"})
    assert found.changes == ()


def test_deferral_of_instances_that_are_attached_is_the_attachments() -> None:
    wanted = [entry(deferral=Deferral(gro_flush_timeout_ns=40_000))]
    assert set(blocks(wanted_changes(wanted, machine()))) == {"NAPI 10 of eth0", "NAPI 11 of eth0"}
    assert set(blocks(wanted_changes(wanted, machine(), held={11}))) == {"NAPI 10 of eth0"}
    first, second = wanted_changes(wanted, machine()).changes
    assert setting_key(first, "gro_flush_timeout_ns") == setting_key(second, "gro_flush_timeout_ns")


def test_a_device_that_is_down_is_not_decided() -> None:
    down = replace(NIC, up=False)
    found = wanted_changes([entry(all=True, coalescing=Coalescing(rx_usecs=50))], machine(down))
    assert found.changes == ()
    assert found.problems == {}
    assert found.undecided == {2}


def test_what_a_driver_has_not_is_asked_of_a_named_device_only() -> None:
    """Which it refuses in its own words."""
    lacking = Coalescing(rx_max_frames=64)
    assert blocks(wanted_changes([entry(coalescing=lacking)], machine())) == {"eth0": {"rx_max_frames": 64}}
    assert wanted_changes([entry(driver="mlx5_core", coalescing=lacking)], machine()).changes == ()


def test_what_the_driver_made_of_a_value_is_not_asked_for_again() -> None:
    wanted = [entry(coalescing=Coalescing(rx_usecs=50))]
    (change,) = wanted_changes(wanted, machine()).changes
    rounded = replace(NIC, coalescing=replace(NIC.coalescing or Coalescing(), rx_usecs=48))
    mine = replace(change, found=rounded.coalescing)
    assert wanted_changes(wanted, machine(rounded), in_force=[mine]).changes == ()
    assert wanted_changes(wanted, machine(), in_force=[mine]).changes == (change,)
    other = [entry(coalescing=Coalescing(rx_usecs=49))]
    assert blocks(wanted_changes(other, machine(rounded), in_force=[mine])) == {"eth0": {"rx_usecs": 49}}


def test_what_adaptive_coalescing_changes_is_no_difference_where_it_is_to_stay_on() -> None:
    adaptive = replace(NIC, coalescing=replace(NIC.coalescing or Coalescing(), use_adaptive_rx=True))
    wanted = Coalescing(rx_usecs=50, tx_usecs=9)
    assert blocks(wanted_changes([entry(coalescing=wanted)], machine(adaptive))) == {"eth0": {"tx_usecs": 9}}
    fixed = Coalescing(rx_usecs=50, use_adaptive_rx=False)
    found = wanted_changes([entry(coalescing=fixed)], machine(adaptive))
    assert blocks(found) == {"eth0": {"rx_usecs": 50, "use_adaptive_rx": False}}


def test_channels_come_alone_and_as_the_driver_has_them() -> None:
    wanted = [entry(channels=8, coalescing=Coalescing(rx_usecs=50))]
    found = wanted_changes(wanted, machine())
    assert blocks(found) == {"channels of eth0": {"combined": 8}}
    assert (2, "rx_usecs") in found.wanted
    eight = replace(NIC, channels=Channels(combined=8, combined_max=8))
    assert blocks(wanted_changes(wanted, machine(eight))) == {"eth0": {"rx_usecs": 50}}
    apart = replace(NIC, channels=Channels(rx=8, rx_max=8, tx=4, tx_max=8))
    (change,) = wanted_changes([entry(channels=8)], machine(apart)).changes
    assert change.after == ChannelCounts(tx=8)
    assert setting_key(change, "tx") == "eth0 tx-channels"
    found = wanted_changes([entry(channels=9)], machine())
    assert found.problems == {"eth0": "eth0: combined-channels 9 is above 8, which its driver has at most"}
    none = replace(NIC, channels=None)
    assert wanted_changes([entry(all=True, channels=8)], machine(none)).changes == ()


@given(
    st.integers(1, 8), st.sampled_from([Channels(combined=4, combined_max=8), Channels(rx=2, rx_max=8, tx=3, tx_max=8)])
)
def test_channels_that_are_set_do_not_differ(count: int, channels: Channels) -> None:
    device = replace(NIC, channels=channels)
    wanted = [entry(channels=count)]
    after = made(device, wanted_changes(wanted, machine(device)).changes)
    assert wanted_changes(wanted, machine(after)).changes == ()
    assert device_drift(wanted, machine(after)).differences == ()


def test_rings_come_first_and_have_keys_of_their_own() -> None:
    wanted = [entry(rings=RingSizes(rx=4096), coalescing=Coalescing(rx_usecs=50), deferral=Deferral(defer_hard_irqs=2))]
    kinds = [type(each) for each in wanted_changes(wanted, machine()).changes]
    assert kinds == [RingsChange, CoalescingChange, NapiChange, NapiChange]
    alone = [entry(rings=RingSizes(rx=4096))]
    assert [type(each) for each in wanted_changes(alone, machine()).changes] == [RingsChange, CoalescingChange]
    assert wanted_changes(alone, machine(), left={"eth0 rx-rings"}).changes == ()
    rings = wanted_changes(wanted, machine()).changes[0]
    assert setting_key(rings, "rx") == "eth0 rx-rings"
    assert napi(1).settings.defer_hard_irqs == 0
