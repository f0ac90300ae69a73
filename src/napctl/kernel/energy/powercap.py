"""RAPL counters through powercap (/sys/class/powercap): Intel's, and AMD's through the same driver.

Documentation/power/powercap/powercap.rst; drivers/powercap/intel_rapl_common.c. Other control types are left alone:
`dtpm` tells what an energy model computes, and that is no measurement.
"""

import re
from pathlib import Path

from napctl.kernel.energy.zones import FileZone, Found, number_of, text_of
from napctl.model.energy import Kind

__all__ = ["powercap_zones"]


SOURCE = "powercap"
ZONE = re.compile(r"(intel-rapl[a-z-]*):(\d+)(?::(\d+))?")
"""Control type, package, and for a part of it its number. `intel-rapl-mmio` tells the same packages a second time."""
REGISTER = 2**32
"""The register behind is 32 bits wide (ENERGY_STATUS_MASK), whatever its unit is."""
DENIED = (
    "permission denied: since Linux 5.10 energy_uj is for root alone (commit 949dd0104c49); run as root or with "
    "CAP_DAC_READ_SEARCH"
)
ONE_CORE = (
    "the zone 'core' is left out: on AMD it counts one core of each package, that of the CPU which reads it "
    "(MSR_AMD_CORE_ENERGY_STATUS)"
)


def powercap_zones(sys: Path, *, amd: bool) -> Found:
    """All RAPL zones below `sys`/class/powercap. `amd`: the processors are AMD's or Hygon's.

    `core` and `uncore` are parts of `package`, `dram` stands beside it, `psys` around it.
    """
    root = sys / "class/powercap"
    try:
        entries = sorted((entry for entry in root.iterdir() if ZONE.fullmatch(entry.name)), key=_order)
    except OSError:
        return Found(SOURCE, lacks=("this kernel shows no /sys/class/powercap",))
    if not entries:
        return Found(SOURCE, lacks=("no RAPL zones in /sys/class/powercap",))
    present = [entry for entry in entries if entry.exists()]
    if not present:
        return Found(
            SOURCE, lacks=("RAPL zones are hidden here: containers are shown none (/sys/devices/virtual/powercap)",)
        )
    zones: dict[tuple[Kind, str], FileZone] = {}
    lacks = []
    for entry in present:
        name = _name(entry)
        kind = _kind(name)
        if kind is None:
            lacks.append(f"the zone '{name}' is left out: nobody says what it covers")
        elif kind == "core" and amd:
            lacks.append(ONE_CORE)
        else:
            # Named alike by two control types, it is one and the same counter: it must not count twice.
            zones.setdefault((kind, name), _zone(entry, name, kind))
    return Found(SOURCE, tuple(zones.values()), tuple(dict.fromkeys(lacks)))


def _order(entry: Path) -> tuple[str, int, int]:
    match = ZONE.fullmatch(entry.name)
    assert match is not None
    return match[1], int(match[2]), int(match[3] or -1)


def _name(entry: Path) -> str:
    """Its own name; a part's behind its package's."""
    own = text_of(entry / "name") or entry.name
    parent, _, _part = entry.name.rpartition(":")
    return f"{text_of(entry.with_name(parent) / 'name') or parent}/{own}" if parent.count(":") else own


def _kind(name: str) -> Kind | None:
    """By the driver's names (rapl_domain_names): package-0, package-1-die-0, core, uncore, dram, psys, psys-1."""
    match = re.fullmatch(r"(?:.*/)?(package|core|uncore|dram|psys)(?:-\d+(?:-die-\d+)?)?", name)
    kinds: dict[str, Kind] = {"package": "package", "core": "core", "uncore": "uncore", "dram": "dram", "psys": "psys"}
    return kinds[match[1]] if match else None


def _zone(entry: Path, name: str, kind: Kind) -> FileZone:
    """max_energy_range_uj is the register's greatest value (get_max_energy_counter()): it wraps one unit later."""
    most = number_of(entry / "max_energy_range_uj")
    unit = max(1, round(most / (REGISTER - 1))) if most else None
    return FileZone(
        name=name,
        kind=kind,
        path=entry / "energy_uj",
        wrap_uj=round(most * REGISTER / (REGISTER - 1)) if most else None,
        resolution=unit,
        denied=DENIED,
    )
