"""NICs on the PCI bus that a program drives itself, with no network device of the kernel (vfio, uio).

Source: Documentation/ABI/testing/sysfs-bus-pci; vfio.rst and uio-howto.rst of Documentation/driver-api.
A NIC that is without a network device here may have it in another network namespace: only its driver tells.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from napctl.model.machine import UserSpaceDevice

__all__ = ["user_space_nics"]


PCI_DEVICES = Path("/sys/bus/pci/devices")
NETWORK_CLASS = "0x02"
"""The first byte of the class: "network controller" (include/linux/pci_ids.h)."""
VFIO, UIO = "vfio-dev", "uio"
"""Directories in a device's own, by which it is /dev/vfio/devices/vfioN or /dev/uioN."""
DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")
VARIANT = "-vfio-pci"
"""How the drivers of drivers/vfio/pci/ for one NIC are called: "mlx5-vfio-pci", "ice-vfio-pci"."""


def user_space_nics(devices: Path = PCI_DEVICES) -> tuple[UserSpaceDevice, ...]:
    """By address; none where the machine has no PCI bus, or hides it."""
    with suppress(OSError):
        return tuple(sorted(_found(devices), key=lambda each: each.bus))
    return ()


def _found(devices: Path) -> Iterator[UserSpaceDevice]:
    for address in os.listdir(devices):  # noqa: PTH208 - hundreds of them
        with suppress(OSError):  # taken out meanwhile; or it has no driver
            if not (devices / address / "class").read_text().startswith(NETWORK_CLASS):
                continue
            driver = (devices / address / "driver").readlink().name
            hands_out = any((devices / address / each).is_dir() for each in (VFIO, UIO))
            if hands_out or driver in DRIVERS or driver.endswith(VARIANT):
                yield UserSpaceDevice(bus=address, driver=driver)
