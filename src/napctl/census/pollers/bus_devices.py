"""From what a process has open to the device on the bus, and to the network device, if the kernel has one of it."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["VERBS", "drivers_devices", "network_devices", "verbs_devices"]


SYS = Path("/sys")
VFIO, UIO = re.compile(r"^/dev/vfio/(\d+)$"), re.compile(r"^/dev/(uio\d+)$")
CDEV = re.compile(r"^/dev/vfio/devices/(vfio\d+)$")
VERBS = re.compile(r"^/dev/infiniband/(uverbs\d+)$")
RESOURCE = re.compile(r"^/sys/.*/([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])/resource\d")


def drivers_devices(names: Iterable[str]) -> tuple[str, ...]:
    """Addresses on the bus of the devices that a process drives itself, by what it has open or mapped.

    vfio: Documentation/driver-api/vfio.rst (a group, or since Linux 6.6 a character device of its own, commit
    8b6f173a4ce4); uio: Documentation/driver-api/uio-howto.rst. A mapped `resourceN` file of sysfs is one as well.
    """
    found: set[str] = set()
    for name in names:
        if group := VFIO.match(name):
            found.update(_entries(SYS / "kernel" / "iommu_groups" / group[1] / "devices"))
        elif cdev := CDEV.match(name):
            found.update(_target(SYS / "class" / "vfio-dev" / cdev[1] / "device"))
        elif uio := UIO.match(name):
            found.update(_target(SYS / "class" / "uio" / uio[1] / "device"))
        elif resource := RESOURCE.match(name):
            found.add(resource[1])
    return tuple(sorted(address for address in found if _is_network(address)))


def verbs_devices(names: Iterable[str]) -> tuple[str, ...]:
    """Network devices behind the verbs that a process has open; the name of the verbs where there are none."""
    found: set[str] = set()
    for name in names:
        if verbs := VERBS.match(name):
            device = SYS / "class" / "infiniband_verbs" / verbs[1] / "device"
            found.update(_entries(device / "net") or [verbs[1]])
    return tuple(sorted(found))


def network_devices(address: str) -> tuple[str, ...]:
    """Those that the kernel has of a PCI device; none if a user-space driver has it."""
    if not re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", address):
        return ()
    return tuple(sorted(_entries(SYS / "bus" / "pci" / "devices" / address / "net")))


def _entries(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 - names alone
    except OSError:
        return []


def _target(link: Path) -> list[str]:
    try:
        return [link.readlink().name]
    except OSError:
        return []


def _is_network(address: str) -> bool:
    """Whether its class says so, or cannot be read: a disk is driven from user space as well (pci_ids.h)."""
    try:
        return (SYS / "bus" / "pci" / "devices" / address / "class").read_text().startswith("0x02")
    except OSError:
        return True
