"""A /sys, /proc and /dev of our own making, with the energy sources that a test wants to see in them."""

import os
from dataclasses import dataclass
from pathlib import Path

from napctl.kernel.energy.sources import Roots

RAPL_RANGE_UJ = 262_143_328_850
"""max_energy_range_uj of most Intel processors: (2^32 - 1) units of 61.035 µJ."""
INTEL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n"
AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu vme\n"
GUEST = "vendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor vme\n"
DCMI = """
    Instantaneous power reading:                   {watts} Watts
    Minimum during sampling period:                 34 Watts
    Maximum during sampling period:                507 Watts
    Average power reading over sample period:      212 Watts
    IPMI timestamp:                           Thu Mar  6 10:11:12 2025
    Sampling period:                          00000001 Seconds.
    Power reading state is:                   {state}

"""


@dataclass(frozen=True)
class Tree:
    """Files below one directory. Everything is written in one piece, as an attribute is read."""

    root: Path

    @property
    def roots(self) -> Roots:
        return Roots(self.root / "sys", self.root / "proc", self.root / "dev", str(self.root / "bin/ipmitool"))

    def put(self, path: str, text: object) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.new")
        new.write_text(f"{text}\n")
        new.replace(file)
        return file

    def cpu(self, text: str) -> None:
        self.put("proc/cpuinfo", text)

    def zone(self, zone: str, name: str, energy_uj: int, range_uj: int | None = RAPL_RANGE_UJ) -> Path:
        """As the kernel has them: the zone below its control type, and a link to it in the class."""
        control, *numbers = zone.split(":")
        real = f"sys/devices/virtual/powercap/{control}/" + "/".join(
            ":".join((control, *numbers[: depth + 1])) for depth in range(len(numbers))
        )
        self.put(f"{real}/name", name)
        if range_uj is not None:
            self.put(f"{real}/max_energy_range_uj", range_uj)
        link = self.root / "sys/class/powercap" / zone
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(self.root / real)
        return self.put(f"{real}/energy_uj", energy_uj)

    def hwmon(self, number: int, driver: str, **attributes: object) -> Path:
        device = f"sys/class/hwmon/hwmon{number}"
        self.put(f"{device}/name", driver)
        for name, value in attributes.items():
            self.put(f"{device}/{name}", value)
        return self.root / device

    def event(self, name: str, config: str, *, scale: str, unit: str = "Joules", pmu: int = 1, cpus: str = "0") -> None:
        device = "sys/bus/event_source/devices/power"
        self.put(f"{device}/type", pmu)
        self.put(f"{device}/cpumask", cpus)
        self.put(f"{device}/events/{name}", config)
        self.put(f"{device}/events/{name}.scale", scale)
        self.put(f"{device}/events/{name}.unit", unit)

    def bmc(self, script: str) -> Path:
        """A BMC, and an ipmitool that does what `script` says (sh)."""
        self.put("dev/ipmi0", "")
        tool = self.put("bin/ipmitool", f"#!/bin/sh\n{script}")
        tool.chmod(0o755)
        return tool


def break_with_eio(file: Path) -> None:
    """From now on opening it works, and reading it fails as a dead device does: /proc/self/mem has nothing at 0."""
    new = file.with_name(f".{file.name}.new")
    new.symlink_to("/proc/self/mem")
    new.replace(file)
    fd = os.open(file, os.O_RDONLY)
    os.close(fd)
