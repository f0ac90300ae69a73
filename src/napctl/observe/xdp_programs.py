"""Which devices have XDP programs, in which mode."""

from contextlib import suppress

from msgspec.structs import replace

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.netlink import Refused
from napctl.kernel.xdp import XdpDevice, xdp_devices
from napctl.model.errors import Unsupported
from napctl.model.machine import Device, XdpPrograms

__all__ = ["with_xdp"]


def with_xdp(netns: NetworkNamespace, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """The same devices, each with its programs."""
    having = {each.ifindex: each for each in xdp_devices(netns) if each.programs}
    if not having.keys() & {device.ifindex for device in devices}:
        return devices
    native: dict[int, bool | None] = {}
    with suppress(Unsupported, Refused), Netdev(netns) as netdev:
        native = {ifindex: netdev.has_native_xdp(ifindex) for ifindex in having}
    return tuple(
        replace(device, xdp=_programs(having[device.ifindex], native.get(device.ifindex)))
        if device.ifindex in having
        else device
        for device in devices
    )


def _programs(found: XdpDevice, driver_has_native: bool | None) -> XdpPrograms:
    return XdpPrograms(
        native=found.native or None,
        generic=found.generic or None,
        offloaded=found.offloaded or None,
        driver_has_native=driver_has_native,
    )
