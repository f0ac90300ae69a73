"""NICs that a program drives itself, from trees of sysfs that were made after its documentation, not recorded."""

from pathlib import Path

import pytest

from napctl.kernel.pci_nics import user_space_nics
from napctl.model.machine import UserSpaceDevice

NIC, DISK = "0x020000\n", "0x010802\n"


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    (tmp_path / "devices").mkdir()
    return tmp_path / "devices"


def add(devices: Path, address: str, driver: str | None, *, kind: str = NIC, has: str | None = None) -> None:
    own = devices / address
    own.mkdir()
    (own / "class").write_text(kind)
    if driver is not None:
        there = devices.parent / "drivers" / driver
        there.mkdir(parents=True, exist_ok=True)
        (own / "driver").symlink_to(there)
    if has is not None:
        (own / has).mkdir()


@pytest.mark.parametrize("driver", ["vfio-pci", "mlx5-vfio-pci", "uio_pci_generic", "igb_uio"])
def test_a_nic_with_such_a_driver_is_handed_out(devices: Path, driver: str) -> None:
    add(devices, "0000:3b:00.0", driver)
    assert user_space_nics(devices) == (UserSpaceDevice(bus="0000:3b:00.0", driver=driver),)


@pytest.mark.parametrize("directory", ["vfio-dev", "uio"])
def test_so_is_one_whose_driver_nobody_knows_if_there_is_a_file_for_it(devices: Path, directory: str) -> None:
    add(devices, "0000:3b:00.0", "some_uio", has=directory)
    assert [nic.driver for nic in user_space_nics(devices)] == ["some_uio"]


def test_what_the_kernel_drives_or_nobody_and_what_is_no_nic_are_none(devices: Path) -> None:
    add(devices, "0000:00:01.0", "mlx5_core")  # also without a network device: it may be in another namespace
    add(devices, "0000:00:02.0", None)
    add(devices, "0000:00:03.0", "vfio-pci", kind=DISK)
    (devices / "0000:00:04.0").mkdir()  # it goes
    assert user_space_nics(devices) == ()


def test_they_come_by_address_and_a_machine_without_the_bus_has_none(devices: Path) -> None:
    for address in ("0000:3b:00.1", "0000:3b:00.0"):
        add(devices, address, "vfio-pci")
    assert [nic.bus for nic in user_space_nics(devices)] == ["0000:3b:00.0", "0000:3b:00.1"]
    assert user_space_nics(devices / "none") == ()
