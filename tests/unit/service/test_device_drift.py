"""What of a device differs from its entries: each setting by the last entry that has it, and nothing else."""

from typing import Any

from hypothesis import given
from msgspec.structs import replace

from napctl.model.drift import Drift
from napctl.model.machine import Channels, Coalescing, Device, Machine, Napi, Rings
from napctl.model.plan import Deferral, RingSizes
from napctl.model.policy import DeviceEntry, Origin
from napctl.model.settings import NapiSettings
from napctl.plan.applied import with_plan
from napctl.plan.goals import GOALS
from napctl.plan.propose import propose
from napctl.service.device_drift import device_drift
from tests.strategies import machines


def napi(napi_id: int, defer: int = 0, flush_ns: int = 0, suspend_ns: int = 0) -> Napi:
    found = NapiSettings(defer_hard_irqs=defer, gro_flush_timeout_ns=flush_ns, irq_suspend_timeout_ns=suspend_ns)
    return Napi(napi_id=napi_id, ifindex=2, irq=40, settings=found)


NIC = Device(
    name="eth0", alternative_names=("enp3s0",), ifindex=2, up=True, driver="mlx5_core", bus="0000:03:00.0",
    speed_mbps=25_000, coalescing=Coalescing(rx_usecs=3, tx_usecs=8, use_adaptive_rx=False),
    rings=Rings(rx=1024, rx_max=8192, tx=1024, tx_max=8192), channels=Channels(combined=4, combined_max=8),
    napis=(napi(10), napi(11)),
)  # fmt: skip


def machine(*devices: Device) -> Machine:
    return Machine(kernel="6.18", netns=1, devices=devices or (NIC,), pollers=(), tcp_limit_output_bytes=4 << 20)


def entry(line: int = 12, **values: Any) -> DeviceEntry:
    whom: dict[str, Any] = {} if {"driver", "all"} & values.keys() else {"name": "eth0"}
    return DeviceEntry(origin=Origin(file="policy.toml", line=line), **whom, **values)


def told(drift: Drift) -> list[str]:
    return [str(each) for each in drift.differences]


def test_a_setting_that_differs_is_one_line_with_the_entry_that_wants_it() -> None:
    drift = device_drift([entry(coalescing=Coalescing(rx_usecs=50, tx_usecs=8))], machine())
    assert told(drift) == ["eth0: rx-usecs is 3, policy wants 50 (policy.toml:12)"]
    (only,) = drift.differences
    assert (only.where, only.setting, only.found, only.wanted) == ("eth0", "rx_usecs", 3, 50)


def test_rings_channels_and_switches_are_compared() -> None:
    wanted = entry(channels=8, rings=RingSizes(rx=4096, tx=1024), coalescing=Coalescing(use_adaptive_rx=True))
    assert told(device_drift([wanted], machine())) == [
        "eth0: use-adaptive-rx is off, policy wants on (policy.toml:12)",
        "eth0: rx-rings is 1024, policy wants 4096 (policy.toml:12)",
        "eth0: combined-channels is 4, policy wants 8 (policy.toml:12)",
    ]


def test_of_several_entries_the_last_that_has_a_setting_wins() -> None:
    entries = [
        entry(1, all=True, coalescing=Coalescing(rx_usecs=100, tx_usecs=100)),
        entry(2, driver="mlx5_core", coalescing=Coalescing(rx_usecs=50)),
        entry(3, coalescing=Coalescing(rx_usecs=3)),
    ]
    assert told(device_drift(entries, machine())) == ["eth0: tx-usecs is 8, policy wants 100 (policy.toml:1)"]


def test_a_device_is_meant_by_its_alternative_name_too() -> None:
    wanted = DeviceEntry(origin=Origin(file="p", line=1), name="enp3s0", channels=4)
    assert device_drift([wanted], machine()) == Drift()


def test_a_device_that_is_not_there_or_down_is_waited_for() -> None:
    wanted = DeviceEntry(origin=Origin(file="p", line=1), name="eth9", channels=4)
    assert device_drift([wanted], machine()) == Drift(waiting=("eth9: there is no such device (p:1)",))
    down = replace(NIC, up=False)
    assert device_drift([entry(channels=8)], machine(down)) == Drift(waiting=("eth0: it is down",))


def test_all_means_hardware_that_is_up() -> None:
    veth = replace(NIC, name="veth0", bus=None, ifindex=3)
    drift = device_drift([entry(all=True, channels=8)], machine(NIC, veth, replace(NIC, name="eth1", up=False)))
    assert [each.where for each in drift.differences] == ["eth0"]


def test_what_a_driver_lacks_differs_of_a_named_device_only() -> None:
    lacking = Coalescing(rx_max_frames=64)
    assert told(device_drift([entry(coalescing=lacking)], machine())) == [
        "eth0: there is no rx-max-frames, policy wants 64 (policy.toml:12)"
    ]
    drift = device_drift([entry(driver="mlx5_core", coalescing=lacking)], machine())
    assert drift == Drift(notes=("eth0: its driver has no rx-max-frames (policy.toml:12)",))


def test_deferral_is_of_each_instance_that_is_not_attached() -> None:
    wanted = [entry(deferral=Deferral(gro_flush_timeout_ns=50_000))]
    alike = device_drift(wanted, machine())
    assert told(alike) == ["eth0: gro-flush-timeout is 0, policy wants 50us (policy.toml:12)"]
    one = replace(NIC, napis=(napi(10, flush_ns=50_000), napi(11, flush_ns=20_000)))
    assert told(device_drift(wanted, machine(one))) == [
        "NAPI 11 of eth0: gro-flush-timeout is 20us, policy wants 50us (policy.toml:12)"
    ]
    assert device_drift(wanted, machine(one), held={11}) == Drift()
    suspended = replace(NIC, napis=(napi(10, 100, 200_000, 20_000_000), napi(11, flush_ns=50_000)))
    assert device_drift(wanted, machine(suspended)) == Drift()


def test_a_goal_wants_what_plan_would_propose_but_for_what_is_written_outright() -> None:
    goal = [entry(goal="balanced", max_added_latency_ns=30_000)]
    assert told(device_drift(goal, machine())) == [
        "eth0: rx-usecs is 3, policy wants 30 (policy.toml:12)",
        "eth0: tx-usecs is 8, policy wants 125 (policy.toml:12)",
    ]
    outright = [entry(1, coalescing=Coalescing(rx_usecs=3)), *goal]
    assert told(device_drift(outright, machine())) == ["eth0: tx-usecs is 8, policy wants 125 (policy.toml:12)"]


def test_a_goal_leaves_the_receiving_side_of_an_attached_device_alone() -> None:
    without = replace(NIC, coalescing=None)
    goal = [entry(goal="balanced")]
    assert {each.setting for each in device_drift(goal, machine(without)).differences} == {
        "defer_hard_irqs", "gro_flush_timeout_ns",
    }  # fmt: skip
    assert device_drift(goal, machine(without), held={10}).differences == ()


def test_a_goal_that_needs_an_input_says_so() -> None:
    drift = device_drift([entry(goal="balanced")], machine(replace(NIC, speed_mbps=None)))
    assert any("speed" in each and each.endswith("(policy.toml:12)") for each in drift.notes)


@given(machines())
def test_a_plan_that_is_applied_leaves_nothing_that_its_goal_wants(found: Machine) -> None:
    wanted = [DeviceEntry(origin=Origin(file="p", line=1), name=each.name, goal="balanced") for each in found.devices]
    advice = propose(found, None, GOALS["balanced"], None, {})
    drift = device_drift(wanted, found)
    assert {(each.where, each.setting) for each in drift.differences} == {
        (each.device, each.setting) for each in advice.proposals
    }
    planned = {each.name: each for each in advice.plan.devices}
    after = replace(
        found,
        devices=tuple(with_plan(each, planned[each.name]) if each.name in planned else each for each in found.devices),
    )
    assert device_drift(wanted, after).differences == ()
