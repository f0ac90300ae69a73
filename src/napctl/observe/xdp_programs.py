"""Which devices have XDP programs, in which mode."""

from collections.abc import Iterator
from contextlib import suppress

from msgspec.structs import replace

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.netlink import Refused
from napctl.kernel.xdp import XdpDevice, xdp_device, xdp_devices
from napctl.model.errors import Unsupported
from napctl.model.machine import Device, XdpPrograms

__all__ = ["with_xdp"]


FEW = 16
"""Devices of which each is asked for its programs, and the kernel not for those of all."""


def with_xdp(netns: NetworkNamespace, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """The same devices, each with its programs."""
    having = {each.ifindex: each for each in _asked(netns, {device.ifindex for device in devices}) if each.programs}
    if not having:
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


def _asked(netns: NetworkNamespace, indexes: set[int]) -> Iterator[XdpDevice]:
    """Those of these devices that are still there."""
    if len(indexes) > FEW:
        return (each for each in xdp_devices(netns) if each.ifindex in indexes)
    return filter(None, (xdp_device(netns, index) for index in indexes))


def _programs(found: XdpDevice, driver_has_native: bool | None) -> XdpPrograms:
    return XdpPrograms(
        native=found.native or None,
        generic=found.generic or None,
        offloaded=found.offloaded or None,
        driver_has_native=driver_has_native,
    )
