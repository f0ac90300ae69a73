"""Rules about XDP and AF_XDP, and that what somebody else drives is left alone."""

import pytest
from msgspec.structs import replace

from napctl.doctor.rules import diagnosis
from napctl.model.census import XdpSocket
from napctl.model.finding import Checkup
from napctl.model.machine import Device, QueueUse, UserSpaceDevice, XdpPrograms
from napctl.model.settings import NapiSettings
from tests.unit.doctor.checkups import OFF, by, checkup, device, napi, row, rules, told

DEFERRED = replace(OFF, defer_hard_irqs=2, gro_flush_timeout_ns=200_000)
LEASE = QueueUse(kind="lease", ifindex=8, queue=1, netns_id=0)


def polled_by_xdp(
    settings: NapiSettings = OFF, *, prefers: bool | None = True, queue: int = 0, name: str = "eth0"
) -> Checkup:
    socket = XdpSocket(device=name, queue=queue, zero_copy=True, holders=((77, "xdpsock"),), prefers_busy_poll=prefers)
    seen = checkup(row(), on=device(napi(settings=settings), driver="ice"))
    return replace(seen, xdp_sockets=(socket,))


def with_program(
    *,
    native: int | None = None,
    generic: int | None = None,
    native_possible: bool | None = True,
) -> Checkup:
    programs = XdpPrograms(native=native, generic=generic, driver_has_native=native_possible)
    return checkup(row(), on=device(xdp=programs))


def leased(**changes: object) -> Device:
    """With two queues, the second of which is a container's."""
    own = device(napi(), napi(1, **changes))
    return replace(own, queues=tuple(replace(each, uses=(LEASE,)) if each.index == 1 else each for each in own.queues))


def test_a_socket_that_prefers_to_poll_a_queue_without_deferral_is_in_danger() -> None:
    found = by("busy-polling-without-deferral", polled_by_xdp())
    assert found.severity == "danger"
    assert "xdpsock (77)" in found.title
    assert "NAPI 8193 of eth0 (rx0 tx0)" in found.title
    assert "defer-hard-irqs 0" in told(found)
    assert found.commands == ("napctl attach 77",)
    assert "issue 138" in found.basis


@pytest.mark.parametrize(
    "seen",
    [
        polled_by_xdp(DEFERRED),
        polled_by_xdp(prefers=False),
        polled_by_xdp(prefers=None),  # nobody may look
        polled_by_xdp(queue=1),  # a queue that is not served by an instance that is known
        polled_by_xdp(name="eth1"),
    ],
)
def test_any_other_socket_is_none(seen: Checkup) -> None:
    assert "busy-polling-without-deferral" not in rules(seen)


def test_generic_mode_is_a_cost_where_the_driver_has_the_native_one() -> None:
    found = by("generic-xdp", with_program(generic=3))
    assert "program 3 in generic mode" in told(found)
    assert rules(with_program(generic=3, native_possible=False)) == []
    assert rules(with_program(generic=3, native_possible=None)) == []
    assert rules(with_program(native=3)) == []


def test_a_leased_queue_is_left_alone_and_nothing_of_it_is_judged() -> None:
    seen = checkup(row(napi(), softirq={2: 500}), row(napi(1), softirq={1: 10_000}), on=leased())
    found = diagnosis(seen)
    assert found.findings == ()
    assert found.left_alone[0] == (
        "rx1 of eth0 is leased to queue 1 of interface 8 of network namespace 0 (ip netns list-id): who has it sets it"
    )
    not_leased = checkup(row(napi(), softirq={2: 500}), row(napi(1), softirq={1: 10_000}), on=device(napi(), napi(1)))
    assert rules(not_leased) == ["single-packet-interrupts"]


def test_a_nic_that_a_program_drives_is_left_alone() -> None:
    seen = checkup(row())
    nics = (UserSpaceDevice(bus="0000:00:05.0", driver="vfio-pci"),)
    found = diagnosis(replace(seen, machine=replace(seen.machine, user_space=nics)))
    assert found.left_alone == (
        "0000:00:05.0 is driven from user space (vfio-pci): the kernel has no network device of it",
    )
    assert found.findings == ()
