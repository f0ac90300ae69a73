"""What is protected: instances by device and CPUs, who keeps his place on the ladder, and what is none of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.kernel.links import Link
from napctl.model.change import Change, NapiChange, ThreadChange, Transaction
from napctl.model.errors import Unsupported
from napctl.model.machine import Device, Napi, Queue
from napctl.model.settings import NapiSettings, ThreadSettings
from napctl.protect.groups import groups_of, matching, obstacle
from napctl.protect.ladder import Ladder
from napctl.protect.protect_options import ProtectOptions
from napctl.protect.steps import changes_of_step, threads_held_elsewhere

OF_ETH0 = ProtectOptions(devices=("eth0",))


def napi(number: int, cpus: str | None, *, threaded: str = "disabled", suspend_ns: int = 0) -> Napi:
    settings = NapiSettings(threaded=threaded, irq_suspend_timeout_ns=suspend_ns)
    return Napi(napi_id=number, ifindex=2, irq=None, cpus=cpus, settings=settings)


def eth0(*napis: Napi) -> Device:
    return Device(name="eth0", ifindex=2, up=True, napis=napis)


def link(name: str, *, up: bool = True, kind: str | None = None, other: str = "") -> Link:
    return Link(
        name=name, alternative_names=(other,) if other else (), ifindex=2, up=up, carrier=up, loopback=name == "lo",
        virtual=kind is not None, kind=kind, link=None, link_netnsid=None, master=None, rx_packets=0, tx_packets=0,
        rx_dropped=0, tx_dropped=0, rx_missed=0, rx_overrun=0,
    )  # fmt: skip


def test_instances_that_share_their_cpus_stand_on_one_ladder() -> None:
    groups = groups_of([eth0(napi(1, "0"), napi(2, "1"), napi(3, "0"), napi(4, None))], OF_ETH0)
    assert [([each.napi_id for each in group.napis], group.cpus) for group in groups] == [
        ([1, 3], frozenset({0})), ([2], frozenset({1})), ([4], None),
    ]  # fmt: skip


def test_what_has_threads_begins_with_their_nice_value_and_storm_control_is_none_unless_allowed() -> None:
    soft, threaded = groups_of([eth0(napi(1, "0"), napi(2, "1", threaded="enabled"))], OF_ETH0)
    assert (soft.steps, threaded.steps) == (("threads", "nice"), ("nice",))
    allowed = replace(OF_ETH0, storm_control_per_second=9)
    assert [each.steps[-1] for each in groups_of([eth0(napi(1, "0"))], allowed)] == ["storm control"]


def test_the_same_instances_keep_their_place_also_when_their_threads_run_elsewhere_and_others_begin_anew() -> None:
    (before,) = groups_of([eth0(napi(1, "0"), napi(2, "0"))], OF_ETH0)
    before.ladder = Ladder(made=("threads",), cause_per_second=9.0)
    moved = eth0(napi(1, "0-1", threaded="enabled"), napi(2, "1", threaded="enabled"))
    (after,) = groups_of([moved], OF_ETH0, [before])
    assert after.ladder == before.ladder
    assert after.cpus == frozenset({0, 1})
    (anew,) = groups_of([eth0(napi(3, "0"))], OF_ETH0, [before])
    assert anew.ladder == Ladder()


@given(st.lists(st.tuples(st.sampled_from(("0", "1", None)), st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_what_is_attached_stands_on_the_ladder_like_all_others(there: list[tuple[str | None, bool, bool]]) -> None:
    def groups(*, some_attached: bool) -> list[tuple[frozenset[int], frozenset[int] | None, tuple[str, ...]]]:
        napis = (
            napi(number, cpus, threaded="enabled" if threaded else "disabled",
                 suspend_ns=20_000_000 * (is_attached and some_attached))
            for number, (cpus, threaded, is_attached) in enumerate(there, 1)
        )  # fmt: skip
        return [(each.napi_ids, each.cpus, each.steps) for each in groups_of([eth0(*napis)], OF_ETH0)]

    assert groups(some_attached=True) == groups(some_attached=False)
    assert frozenset().union(*(ids for ids, _, _ in groups(some_attached=True))) == set(range(1, len(there) + 1))


def test_a_device_of_which_nothing_receives_is_not_protected() -> None:
    sends = replace(eth0(napi(1, "0")), queues=(Queue(kind="rx", index=0, ifindex=2, napi_id=7),))
    assert groups_of([sends], OF_ETH0) == []
    assert obstacle("eth0", link("eth0"), [], has_napis=True) == "none of its NAPI instances receives anything"


def thread_of(number: int, netns: int = 1) -> ThreadChange:
    before, after = ThreadSettings(nice=0), ThreadSettings(nice=0, cpus="1")
    return ThreadChange(netns=netns, device="eth0", ifindex=2, napi_id=number, before=before, after=after)


def suspension_of(number: int, netns: int = 1) -> NapiChange:
    before, after = NapiSettings(irq_suspend_timeout_ns=0), NapiSettings(irq_suspend_timeout_ns=20_000_000)
    return NapiChange(netns=netns, device="eth0", ifindex=2, napi_id=number, before=before, after=after)


CHANGES = st.builds(
    lambda make, number, netns: make(number, netns),
    st.sampled_from((thread_of, suspension_of)), st.integers(1, 3), st.integers(1, 2),
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(("attach", "apply", "protect")), st.lists(CHANGES, max_size=3)), max_size=4))
def test_left_to_others_is_what_they_hold_the_thread_of_and_not_what_they_suspend(
    found: list[tuple[Any, list[Change]]],
) -> None:
    own = 1
    live = [
        Transaction(number=number, kind=kind, boot_id="b", made_unix_ns=1, name="x", changes=tuple(changes))
        for number, (kind, changes) in enumerate(found, own)
    ]
    others = [each for transaction in live[1:] for each in transaction.changes]
    held = {(each.netns, each.napi_id) for each in others if isinstance(each, ThreadChange)}
    assert threads_held_elsewhere(live, own) == held


def test_devices_are_meant_by_name_or_as_hardware_that_is_up() -> None:
    there = [link("lo"), link("eth0", other="uplink"), link("eth1", up=False), link("veth0", kind="veth")]
    assert [each.name for each in matching(there, OF_ETH0)] == ["eth0"]
    assert [each.name for each in matching(there, ProtectOptions(devices=("uplink", "veth0")))] == ["eth0", "veth0"]
    assert [each.name for each in matching(there, ProtectOptions())] == ["eth0"]


def test_why_a_device_is_not_protected() -> None:
    assert obstacle("eth9", None, [], has_napis=False) == "there is no such device"
    assert obstacle("eth0", link("eth0", up=False), [], has_napis=False) == "it is down"
    assert "`ethtool -K veth0 gro on`" in obstacle("veth0", link("veth0", kind="veth"), [], has_napis=False)
    assert "so it has no NAPI threads" in obstacle("wlan0", link("wlan0"), [], has_napis=False)
    groups = groups_of([eth0(napi(1, "0"))], OF_ETH0)
    assert obstacle("eth0", link("eth0"), groups, has_napis=True) == ""


def of_one_switch(number: int, cpus: str, threaded: str = "disabled", *, suspend_ns: int = 0) -> Napi:
    """As before Linux 6.17, where a thread outlives its being switched off."""
    settings = NapiSettings(irq_suspend_timeout_ns=suspend_ns)
    thread = ThreadSettings(threaded=threaded, nice=0, cpus="0-1")
    return Napi(napi_id=number, ifindex=2, irq=None, cpus=cpus, settings=settings, thread_pid=77, thread=thread)


def test_a_thread_that_was_left_by_its_switch_polls_nothing() -> None:
    (soft,) = groups_of([eth0(of_one_switch(1, "0"))], OF_ETH0)
    (threaded,) = groups_of([eth0(of_one_switch(1, "0", "enabled"))], OF_ETH0)
    assert (soft.steps, threaded.steps) == (("threads", "nice"), ("nice",))


def test_instances_of_one_switch_stand_on_one_ladder_attached_or_not() -> None:
    attached = of_one_switch(3, "2", suspend_ns=20_000_000)
    (group,) = groups_of([eth0(of_one_switch(1, "0"), of_one_switch(2, "1"), attached)], OF_ETH0)
    assert (set(group.napi_ids), set(group.cpus or ()), group.steps) == ({1, 2, 3}, {0, 1, 2}, ("threads", "nice"))


def test_threads_for_a_whole_device_are_refused_if_others_hold_one_of_its_instances() -> None:
    with pytest.raises(Unsupported, match="NAPI 2 is set by others, and this kernel has threads for all"):
        changes_of_step("threads", 1, "eth0", [of_one_switch(1, "0"), of_one_switch(2, "1")], {(1, 2)})
