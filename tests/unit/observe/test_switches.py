"""Who polls where one switch gives threads to all instances of a device: sysfs and /proc are doubles."""

import pytest
from msgspec.structs import replace

from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.machine import Device, Napi
from napctl.model.settings import NapiSettings, ThreadSettings
from napctl.observe import machine
from napctl.observe.machine import with_switches

LEFT = Napi(napi_id=1, ifindex=2, irq=30, cpus="0-7", thread_pid=77, settings=NapiSettings())
"""As it is told of before Linux 6.17: with the pid of a thread, whether that polls it or not."""


@pytest.mark.parametrize(("threaded", "cpus"), [("disabled", "3"), ("enabled", "0-7")])
def test_packets_come_to_the_interrupt_where_a_thread_is_only_left(
    threaded: str, cpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = ThreadSettings(threaded=threaded, nice=0, cpus="0-7")

    def told(_netns: object, devices: tuple[Device, ...], _lacks: object) -> tuple[Device, ...]:
        return tuple(replace(each, napis=(replace(LEFT, thread=thread),)) for each in devices)

    monkeypatch.setattr(machine, "_with_attributes", told)
    monkeypatch.setattr("napctl.kernel.interrupts.affinity", {30: "3"}.get)
    with NetworkNamespace.current() as netns:
        (device,) = with_switches(netns, (Device(name="eth0", ifindex=2, up=True, napis=(LEFT,)),))
    assert (device.napis[0].cpus, device.napis[0].thread) == (cpus, thread)
