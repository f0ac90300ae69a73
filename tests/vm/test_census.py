"""Who takes packets of real NICs past the kernel: a socket of AF_XDP, a driver in user space."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.model.census import Census
from napctl.model.value import from_json
from tests.lab.census.xdp import receiver_code
from tests.lab.helpers import Napctl
from tests.lab.plans import HEAD
from tests.vm.test_modes import python
from tests.vm.wire import Wire, run

PCI = Path("/sys/bus/pci")


def test_a_socket_of_af_xdp_on_the_queue_of_a_nic_is_named_by_xsk_diag(wire: Wire, napctl: Napctl) -> None:
    """The kernel copies its packets: virtio_net has zero copy for devices behind the DMA API alone."""
    under = ("ip", "netns", "exec", wire.peer_namespace)
    with python(receiver_code(wire.peer), under=under) as receiver:
        command = ("census", wire.peer, "--netns", wire.peer_namespace, "--seconds", 0.1, "--json")
        found = from_json(napctl(*command, timeout_s=120).stdout, Census)
    (program,) = (each for each in found.pollers if each.pid == receiver.pid)
    assert (program.kind, program.devices) == ("AF_XDP", (wire.peer,))
    assert program.evidence == (f"an AF_XDP socket on queue 0 of {wire.peer} [sock_diag]",)
    (queue,) = (queue for device in found.devices for queue in device.queues if queue.handed)
    (way,) = queue.handed
    assert (queue.device, queue.queues[0], way.kind) == (wire.peer, "rx0", "AF_XDP")
    assert way.by == f"{program.name} ({receiver.pid})"
    assert any("its packets are copied" in text for text in way.evidence)


@contextmanager
def driven_from_user_space(nic: str) -> Iterator[str]:
    """By a driver that hands it to whoever opens it; its address on the bus. Afterwards it is as it was."""
    device = (Path("/sys/class/net") / nic / "device").resolve()
    driver, address = (device / "driver").resolve().name, device.name
    subprocess.run(["modprobe", "uio_pci_generic"], check=True)
    moved_to(address, "uio_pci_generic")
    try:
        yield address
    finally:
        moved_to(address, driver)
        (name,) = (each.name for each in (device / "net").iterdir())
        if name != nic:
            run("ip", "link", "set", name, "name", nic)


def moved_to(address: str, driver: str) -> None:
    device = PCI / "devices" / address
    (device / "driver_override").write_text(f"{driver}\n")
    (device / "driver" / "unbind").write_text(address)
    (PCI / "drivers_probe").write_text(address)
    (device / "driver_override").write_text("\n")
    assert (device / "driver").resolve().name == driver


@pytest.mark.long
def test_a_nic_that_is_driven_from_user_space_is_named_and_nothing_of_it_is_set(napctl: Napctl, tmp_path: Path) -> None:
    with driven_from_user_space("e1000e1") as address:
        found = from_json(napctl("census", address, "--seconds", 0.1, "--json", timeout_s=120).stdout, Census)
        plan = tmp_path / "plan.toml"
        plan.write_text(
            f'{HEAD}[e1000e1]\ndriver = "e1000e"\nbus = "{address}"\nrx-queues = 1\ntx-queues = 1\n'
            "[e1000e1.coalescing]\nrx-usecs = 20\n"
        )
        refused = napctl("apply", plan, timeout_s=120)
    (device,) = found.devices
    assert (device.name, device.driver, device.handed[0].kind) == (address, "uio_pci_generic", "user-space driver")
    assert device.handed[0].evidence == ("driver uio_pci_generic [sysfs]",)
    assert refused.failed_with(3, f"e1000e1 ({address})", "driven from user space", "nothing was changed")
