"""Devices and queues of a census: what is handed past the stack, what nobody tells, and whose a thing is."""

import pytest
from msgspec.structs import replace

from napctl.census.handed import Facts
from napctl.census.queues import census_devices
from napctl.census.xdp_counts import XdpCounts
from napctl.model.census import CensusDevice, Poller, TakenWay, XdpSocket
from napctl.model.counts import QueueCounts
from napctl.model.machine import Device, LowerDevice, Queue, QueueUse, UserSpaceDevice, XdpPrograms
from napctl.model.value import from_json, to_json
from napctl.model.window import Window
from tests.unit.census.machines import IFINDEX, LEASE, NAPI, NETNS, epoll, nic, row, window

XSK, RING, MEMORY = (QueueUse(kind=kind) for kind in ("AF_XDP", "io_uring", "device memory"))


def one(device: Device, seen: Window, facts: Facts | None = None) -> CensusDevice:
    (found,) = census_devices(NETNS, [device], seen, facts or Facts())
    assert from_json(to_json(found), CensusDevice) == found
    return found


def told(ways: tuple[TakenWay, ...]) -> list[tuple[str, str | None, int | None, float | None]]:
    return [(way.kind, way.by, way.packets, way.share) for way in ways]


def test_each_instance_has_a_row_with_its_queues_and_its_packets() -> None:
    found = one(nic((), ()), window(row(softirq=10), row(napi_id=NAPI + 1)))
    assert [(each.napi_id, each.queues, each.packets) for each in found.queues] == [
        (NAPI, ("rx0", "tx0"), 10),
        (NAPI + 1, ("rx1", "tx1"), 0),
    ]
    assert (found.rx_packets, found.polled, found.handed) == (1000, (), ())


def test_instances_of_other_devices_and_namespaces_are_not_its_own() -> None:
    others = (replace(row(softirq=9), netns=1), replace(row(softirq=9), ifindex=IFINDEX + 1))
    assert [each.packets for each in one(nic(), window(row(softirq=1), *others)).queues] == [1]


def test_without_a_probe_packets_are_those_that_the_driver_counts_of_its_queues() -> None:
    counts = (QueueCounts(kind="rx", index=0, packets=12), QueueCounts(kind="tx", index=0, packets=99))
    assert [each.packets for each in one(nic(), window(row(counted=False), queues=counts)).queues] == [12]
    assert [each.packets for each in one(nic(), window(row(counted=False))).queues] == [None]


def test_queues_of_which_the_driver_tells_no_instance_stand_together_but_for_those_that_are_used() -> None:
    queues = tuple(
        Queue(ifindex=IFINDEX, kind="rx", index=index, napi_id=None, uses=(RING,) if index == 2 else ())
        for index in range(4)
    )
    found = one(nic(queues=queues, napis=()), window())
    assert [each.queues for each in found.queues] == [("rx0", "rx1", "rx3"), ("rx2",)]
    assert told(found.queues[1].handed) == [("io_uring zero copy", None, None, None)]


def test_a_socket_of_af_xdp_has_its_holder_and_what_was_redirected_to_it() -> None:
    facts = Facts(
        xdp_sockets=(XdpSocket(device="eth0", queue=0, zero_copy=True, holders=((77, "xdpsock"),)),),
        xdp_counts={"eth0": {0: XdpCounts(dropped=10, redirected=60)}},
        program_names={24: "lb"},
    )
    found = one(nic((XSK,), xdp=XdpPrograms(native=24)), window(row(softirq=100), rx_packets=100), facts)
    assert told(found.queues[0].handed) == [
        ("AF_XDP", "xdpsock (77)", 60, 0.6),
        ("XDP native", "program 24 (lb)", 10, 0.1),
    ]
    assert told(found.handed) == [("XDP native", "program 24 (lb)", 70, 0.7)]


def test_what_is_redirected_without_a_socket_is_the_programs() -> None:
    facts = Facts(xdp_counts={"eth0": {0: XdpCounts(redirected=60)}})
    found = one(nic(xdp=XdpPrograms(native=24)), window(row(softirq=60), rx_packets=60), facts)
    assert told(found.queues[0].handed) == [("XDP native", "program 24", 60, 1.0)]


def test_more_packets_than_were_polled_are_all_of_them() -> None:
    facts = Facts(xdp_counts={"eth0": {0: XdpCounts(dropped=60)}})
    found = one(nic(xdp=XdpPrograms(native=24)), window(row(softirq=59)), facts)
    assert [way.share for way in found.queues[0].handed] == [1.0]


def test_generic_and_offloaded_programs_are_told_and_nobody_counts_them() -> None:
    found = one(nic(xdp=XdpPrograms(generic=3, offloaded=4)), window(row()))
    assert told(found.handed) == [("XDP generic", "program 3", None, None), ("XDP offload", "program 4", None, None)]


@pytest.mark.parametrize(
    ("use", "kind", "by"),
    [
        (LEASE, "leased", "queue 1 of interface 8 of network namespace 0 (ip netns list-id)"),
        (replace(LEASE, netns_id=None), "leased", "queue 1 of interface 8"),
        (RING, "io_uring zero copy", None),
        (MEMORY, "device memory", None),
    ],
)
def test_who_has_a_queue_is_said_with_its_evidence(use: QueueUse, kind: str, by: str | None) -> None:
    (queue,) = one(nic((use,)), window(row())).queues
    (way,) = queue.handed
    assert (way.kind, way.by) == (kind, by)
    assert "queue-get" in way.evidence[0]


def test_filters_in_the_nic_are_a_hint() -> None:
    found = one(nic(), window(row()), Facts(filters_in_hardware={"eth0": 2}))
    assert told(found.handed) == [("hardware offload", "2 filters", None, None)]


def test_a_nic_that_a_program_drives_is_a_device_without_an_index() -> None:
    nics = (UserSpaceDevice(bus="0000:00:05.0", driver="vfio-pci"),)
    dpdk = Poller(pid=9, started_ticks=1, name="testpmd", kind="DPDK", devices=("0000:00:05.0",))
    (found,) = census_devices(NETNS, [], window(), Facts(user_space=nics, pollers=(dpdk,)))
    assert (found.name, found.ifindex, found.up) == ("0000:00:05.0", None, None)
    assert told(found.handed) == [("user-space driver", "testpmd (9)", None, None)]
    assert found.handed[0].evidence == ("driver vfio-pci [sysfs]",)


def test_software_devices_say_whose_packets_they_have() -> None:
    plain = nic(bus=None, napis=(), queues=(Queue(ifindex=IFINDEX, kind="rx", index=0, napi_id=None),))
    vlan = replace(plain, kind="vlan", lower=(LowerDevice(name="eth7", ifindex=7),))
    assert told(one(vlan, window()).polled) == [("lower device", "eth7", 1000, None)]
    assert told(one(replace(plain, kind="veth"), window()).polled) == [("backlog", None, 1000, 1.0)]
    assert one(replace(plain, kind="tun"), window()).polled == ()  # not known
    assert one(replace(vlan, up=False), window()).polled == ()


def test_epoll_instances_of_the_machine_are_asked_for_who_would_poll() -> None:
    found = one(nic(), window(row()), Facts(epolls=(epoll(),)))
    assert [way.by for way in found.queues[0].polled] == ["memcached (7)", None]


def test_the_only_instance_serves_the_only_rx_queue_also_where_the_driver_does_not_say_so() -> None:
    def queues(number: int) -> tuple[Queue, ...]:
        return tuple(Queue(ifindex=IFINDEX, kind="rx", index=index, napi_id=None) for index in range(number))

    veth = nic(queues=queues(1), bus=None, kind="veth")
    assert [each.queues for each in one(veth, window(row())).queues] == [("rx0",)]
    assert [each.queues for each in one(replace(veth, queues=queues(2)), window(row())).queues] == [()]


@pytest.mark.parametrize(("dropped", "share"), [(500, 0.5), (1010, 1.0), (5000, None)])
def test_where_far_more_were_taken_than_the_device_counts_there_is_no_share(dropped: int, share: float | None) -> None:
    device = nic((), xdp=XdpPrograms(native=5, generic=None, offloaded=None, driver_has_native=True))
    found = one(device, window(), Facts(xdp_counts={device.name: {None: XdpCounts(dropped=dropped)}}))
    assert [(way.packets, way.share) for way in found.handed] == [(dropped, share)]
