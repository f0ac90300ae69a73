"""A /proc and a /sys of our own making, for programs and NICs that are not here.

Made from documentation, not recorded: Onload (UG1586), VMA and XLIO (their READMEs), VPP (s3-docs.fd.io), RDMA
(rdma-core), F-Stack and Seastar (their sources), vfio and uio (Documentation/driver-api). Nothing of it was seen live.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from napctl.census.pollers import bus_devices, spinning
from napctl.census.pollers.namespace_links import Namespaces
from napctl.census.pollers.suspects import Suspect, mapped_signs, suspect
from napctl.kernel import executable, held_files, processes
from napctl.kernel.processes import Process

HEADS = {
    "unix": "Num       RefCount Protocol Flags    Type St Inode Path",
    "packet": "sk               RefCnt Type Proto  Iface R Rmem   User   Inode",
}


@dataclass(frozen=True)
class Trees:
    """Files below one directory, which napctl takes for /proc and /sys."""

    root: Path

    def process(
        self,
        pid: int,
        *,
        program: str = sys.executable,
        arguments: tuple[str, ...] = (),
        maps: tuple[str, ...] = (),
        fds: tuple[str, ...] = (),
        unix: tuple[tuple[int, str], ...] = (),
        packet: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """`unix`: inode and path of its listeners; `packet`: inode and interface index of its packet sockets."""
        directory = self.root / "proc" / str(pid)
        (directory / "fd").mkdir(parents=True)
        (directory / "net").mkdir()
        lines = [f"{0x7F0000000000 + 4096 * at:x}-{0x7F0000001000 + 4096 * at:x} rw-s 00000000 00:05 {at}   {name}"
                 for at, name in enumerate(("/usr/lib/libc.so.6", *maps))]  # fmt: skip
        (directory / "maps").write_text("\n".join([*lines, "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 "]) + "\n")
        for number, name in enumerate(fds):
            (directory / "fd" / str(number)).symlink_to(name)
        (directory / "exe").symlink_to(program)
        (directory / "cmdline").write_text("\0".join((program, *arguments, "")))
        table = [f"0: 00000002 00000000 00010000 0005 01 {inode} {path}" for inode, path in unix]
        (directory / "net" / "unix").write_text("\n".join((HEADS["unix"], *table)) + "\n")
        rows = [f"0 3 3 0003 {ifindex} 1 0 0 {inode}" for inode, ifindex in packet]
        (directory / "net" / "packet").write_text("\n".join((HEADS["packet"], *rows)) + "\n")

    def vfio(self, group: int, *addresses: str) -> None:
        for address in addresses:
            (self.root / "sys/kernel/iommu_groups" / str(group) / "devices" / address).mkdir(parents=True)

    def uio(self, name: str, address: str) -> None:
        self._link(f"sys/class/uio/{name}/device", f"../../../devices/pci0000:00/{address}")

    def verbs(self, name: str, *netdevs: str) -> None:
        (self.root / "sys/class/infiniband_verbs" / name / "device").mkdir(parents=True)
        for each in netdevs:
            (self.root / "sys/class/infiniband_verbs" / name / "device" / "net" / each).mkdir(parents=True)

    def pci(self, address: str, device_class: str, *netdevs: str) -> None:
        directory = self.root / "sys/bus/pci/devices" / address
        directory.mkdir(parents=True)
        (directory / "class").write_text(f"{device_class}\n")
        for each in netdevs:
            (directory / "net" / each).mkdir(parents=True)

    def _link(self, path: str, target: str) -> None:
        (self.root / path).parent.mkdir(parents=True)
        os.symlink(target, self.root / path)  # noqa: PTH211 - it leads nowhere

    @staticmethod
    def seen(pid: int, *threads: str, spins: bool = False) -> Suspect:
        """What napctl makes of the process."""
        with Namespaces() as there:
            ours = Process(pid=pid, name="server", started_ticks=1)
            return suspect(ours, mapped_signs(pid), threads, spins=spins, there=there)


@pytest.fixture(name="trees")
def trees_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trees:
    for module in (held_files, executable, processes, spinning):
        monkeypatch.setattr(module, "PROC", tmp_path / "proc")
    monkeypatch.setattr(bus_devices, "SYS", tmp_path / "sys")
    return Trees(tmp_path)
