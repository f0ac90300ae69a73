"""The census of a lab: each way of taking packets, and each XDP program and AF_XDP socket, is told as what it is."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from napctl.census.take_census import take_census
from napctl.kernel.sysfs import DeviceAttributes
from napctl.lab.bed import Lab, run_inside
from napctl.lab.servers import Server
from napctl.model.census import Census, CensusDevice, QueueWay, TakenWay
from napctl.model.settings import NapiSettings
from napctl.model.value import from_json
from napctl.observe.machine import take_machine
from tests.lab.census.xdp import (
    XDP_DROP,
    XDP_PASS,
    attached,
    give_socket,
    receiver,
    socket_map,
    to_socket,
    verdict,
)
from tests.lab.helpers import Napctl, ask, at_server, in_namespace, set_napi, until, without
from tests.meanwhile import again_and_again

pytestmark = pytest.mark.lab

SECONDS = 0.1
"""Of a census here."""


@contextmanager
def datagrams(lab: Lab) -> Iterator[None]:
    """To the server's end, where nobody waits for them."""
    with lab.client.namespace.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send() -> None:
        with suppress(OSError):  # an ICMP error of the datagram before
            sender.sendto(b"x", (lab.server.address, 7))

    with sender, again_and_again(send):
        yield


def census(lab: Lab) -> Census:
    return take_census(lab.server.namespace, (), SECONDS)


def device_of(found: Census) -> CensusDevice:
    (device,) = (device for device in found.devices if device.ifindex is not None)
    return device


def queue_of(found: Census) -> QueueWay:
    (queue,) = device_of(found).queues
    return queue


def seen(lab: Lab, wanted: Callable[[TakenWay], bool]) -> TakenWay:
    """A way of its queue, or of its device, once it is seen."""

    def looked() -> TakenWay | None:
        found = census(lab)
        every = (*queue_of(found).polled, *queue_of(found).handed, *device_of(found).handed)
        return next((way for way in every if wanted(way)), None)

    found = until(looked, "a way of taking packets")
    assert found is not None
    return found


def napi_id(lab: Lab) -> int:
    (napi,) = lab.server.napis()
    return napi.napi_id


def without_thread(lab: Lab) -> None:
    with DeviceAttributes(lab.server.namespace) as attributes:
        attributes.write(lab.server.device, "threaded", "0")


def test_packets_of_a_napi_thread_are_its(lab: Lab) -> None:
    with datagrams(lab):
        way = seen(lab, lambda way: way.kind == "NAPI thread" and bool(way.packets))
    assert way.share == 1.0
    assert way.evidence == ("counted [probe]", "threaded enabled [netdev netlink]")


def test_packets_without_a_thread_come_by_interrupt_and_with_deferral_by_that(lab: Lab) -> None:
    without_thread(lab)
    with datagrams(lab):
        assert seen(lab, lambda way: way.kind == "interrupts" and bool(way.packets)).share == 1.0
        set_napi(lab, napi_id(lab), NapiSettings(defer_hard_irqs=2, gro_flush_timeout_ns=20_000))
        way = seen(lab, lambda way: way.kind == "deferral" and bool(way.packets))
    assert "defer-hard-irqs 2, gro-flush-timeout 20us [netdev netlink]" in way.evidence


def test_what_an_attached_server_polls_itself_is_suspension(
    lab: Lab, napctl: Napctl, server: Server, client: socket.socket
) -> None:
    assert "suspension" not in {way.kind for way in queue_of(census(lab)).polled}
    napctl.attach_quickly(server.pid)
    named = seen(lab, lambda way: way.kind == "suspension")
    assert named.by == f"memcached ({server.pid})"
    with ExitStack() as many:
        clients = [client, *(many.enter_context(ask(lab, server)) for _ in range(15))]

        def burst() -> None:
            for each in clients:
                each.sendall(b"version\r\n")
            for each in clients:
                assert each.recv(100).startswith(b"VERSION")

        many.enter_context(again_and_again(burst))
        way = seen(lab, lambda way: way.kind == "suspension" and bool(way.packets))
    assert way.by == f"memcached ({server.pid})"
    assert "irq-suspend-timeout 20ms [netdev netlink]" in way.evidence


@pytest.mark.parametrize("generic", [False, True], ids=["native", "generic"])
def test_an_xdp_program_is_told_with_its_mode_and_its_name(lab: Lab, generic: bool) -> None:
    kind = "XDP generic" if generic else "XDP native"
    assert device_of(census(lab)).handed == ()
    with attached(lab.server, verdict(XDP_PASS), generic=generic):
        (way,) = device_of(census(lab)).handed
        assert (way.kind, way.by is not None and way.by.endswith("(census)")) == (kind, True)
    assert device_of(census(lab)).handed == ()


def test_among_many_devices_it_is_told_as_well(lab: Lab) -> None:
    for number in range(10):
        in_namespace(lab.server.namespace, "ip", "link", "add", f"v{number}", "type", "veth")
    with attached(lab.server, verdict(XDP_PASS), generic=True):
        machine = take_machine(lab.server.namespace, with_pollers=False)
    assert [each.name for each in machine.devices if each.xdp is not None] == [lab.server.device]


def test_what_a_native_program_drops_is_counted_and_what_it_passes_is_not(lab: Lab) -> None:
    with datagrams(lab), attached(lab.server, verdict(XDP_DROP), generic=False):
        # All; but for what is polled between two readings.
        seen(lab, lambda way: way.kind == "XDP native" and (way.share or 0) > 0.5)
    with datagrams(lab), attached(lab.server, verdict(XDP_PASS), generic=False):
        until(lambda: queue_of(census(lab)).packets, "packets")
        assert queue_of(census(lab)).handed == ()


def taken_by(pid: int, found: Census) -> int:
    """Packets that a program took past the kernel, by its own count."""
    (program,) = (each for each in found.pollers if each.pid == pid)
    return (program.really.port_packets or 0) if program.really is not None else 0


@pytest.mark.parametrize("generic", [False, True], ids=["native", "generic"])
def test_a_socket_of_af_xdp_is_seen_on_its_queue_with_its_process(lab: Lab, generic: bool) -> None:
    sockets = socket_map()
    try:
        with attached(lab.server, to_socket(sockets), generic=generic):
            assert queue_of(census(lab)).handed == ()
            with receiver(lab.server) as pid:
                found = census(lab)
                (way,) = queue_of(found).handed
                assert (way.kind, way.by is not None and f"({pid})" in way.by) == ("AF_XDP", True)
                assert any("its packets are copied" in text for text in way.evidence)
                (program,) = (each for each in found.pollers if each.pid == pid)
                assert (program.kind, program.devices) == ("AF_XDP", ("server0",))
                give_socket(pid, sockets)
                with datagrams(lab):
                    until(lambda: taken_by(pid, census(lab)), "packets in its ring")
                    if generic:  # which the driver does not count
                        assert queue_of(census(lab)).handed[0].packets is None
                    else:
                        assert seen(lab, lambda way: way.kind == "AF_XDP" and bool(way.share))
            until(lambda: queue_of(census(lab)).handed == (), "that the socket is gone")
    finally:
        os.close(sockets)


def test_without_napi_instances_packets_of_a_pair_go_over_the_backlog(lab: Lab) -> None:
    with DeviceAttributes(lab.server.namespace) as attributes:
        attributes.write(lab.server.device, "threaded", "0")
    run_inside(lab.server.namespace, ["ethtool", "-K", lab.server.device, "gro", "off"])
    found = device_of(census(lab))
    assert ([way.kind for way in found.polled], found.queues) == (["backlog"], ())


def test_a_census_without_any_bypass_is_short_quick_and_says_so(lab: Lab, napctl: Napctl) -> None:
    began = time.monotonic()
    done = napctl("census", *at_server(lab), "--seconds", 0.5)
    took = time.monotonic() - began
    lines = done.stdout.splitlines()
    assert (done.status, done.stderr) == (0, "")
    assert "no packet goes past the kernel" in lines[0]
    of_others = [part for part in done.stdout.split("\n\n") if part.partition("\n")[0].endswith("): busy, no NIC")]
    assert len(lines) - "\n\n".join(of_others).count("\n") - 2 * len(of_others) < 24  # tests that run beside this one
    assert took < 30  # under load; what it takes alone, docs/census.md says
    found = from_json(napctl("census", *at_server(lab), "--seconds", 0.1, "--json").stdout, Census)
    assert [device.name for device in found.devices] == [lab.server.device]


def test_who_may_not_look_is_told_what_is_missing_and_the_rest_is_right(napctl: Napctl) -> None:
    """Of the machine's own devices: to enter a lab needs what is missing."""
    bare = without("bpf", "perfmon", "sys_admin", "sys_ptrace", "dac_override", "dac_read_search")
    done = napctl("census", "--seconds", 0.1, "--json", under=bare)
    assert (done.status, done.stderr) == (0, "")
    found = from_json(done.stdout, Census)
    whole = from_json(napctl("census", "--seconds", 0.1, "--json").stdout, Census)
    assert [(each.name, [way.queues for way in each.queues]) for each in found.devices] == [
        (each.name, [way.queues for way in each.queues]) for each in whole.devices
    ]
    assert all(way.packets is None for each in found.devices for queue in each.queues for way in queue.polled)
    assert len([each for each in found.missing if "CAP_BPF" in each]) == 1
    assert len(found.missing) == len({each.partition(":")[0] for each in found.missing})


def test_a_device_that_is_not_there_is_one_line(napctl: Napctl) -> None:
    assert napctl("census", "nosuch0").failed_with(2, "nosuch0")
    assert napctl("census", "--seconds", "nan").failed_with(2, "nan")
