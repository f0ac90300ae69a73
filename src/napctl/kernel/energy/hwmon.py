"""Energy and power of hwmon sensors (/sys/class/hwmon) of which it is known what they measure.

Documentation/hwmon/sysfs-interface.rst: energyN_input in µJ, powerN_average and powerN_input in µW. Most sensors
measure one rail, a disk or a power supply. To take those for the machine would be wrong: only drivers that are named
here are read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napctl.kernel.energy.zones import FileZone, Found, number_of, text_of
from napctl.model.energy import Kind

__all__ = ["hwmon_zones"]


SOURCE = "hwmon"
ATTRIBUTE = re.compile(r"energy\d+_input|power\d+_(?:average|input)")
POWER_INTERVAL_SECONDS = 0.25
DENIED = "permission denied: this sensor is for root alone; run as root or with CAP_DAC_READ_SEARCH"


@dataclass(frozen=True)
class SensorDriver:
    """What a driver's sensors measure: those whose label, or for want of one OEM text, matches."""

    driver: str
    pattern: str
    kind: Kind


KNOWN = (
    # drivers/hwmon/amd_energy.c: one for each core, and one for each socket.
    SensorDriver("amd_energy", r"Esocket\d+", "package"),
    SensorDriver("amd_energy", r"Ecore\d+", "core"),
    # drivers/hwmon/fam15h_power.c: the processor's own estimate of its power.
    SensorDriver("fam15h_power", r"", "package"),
    # drivers/hwmon/acpi_power_meter.c: the machine, if the firmware gives no text. NVIDIA's Grace names its rails:
    # the socket with its memory, the cores in it, and others, which overlap (Grace Performance Tuning Guide, "Power and
    # Thermals").
    SensorDriver("power_meter", r"", "platform"),
    SensorDriver("power_meter", r"Grace Power Socket \d+", "package"),
    SensorDriver("power_meter", r"CPU Power Socket \d+", "core"),
)


def hwmon_zones(sys: Path) -> Found:
    """The sensors of KNOWN below `sys`/class/hwmon; the others are named."""
    devices = sorted((sys / "class/hwmon").glob("hwmon*"), key=lambda path: (len(path.name), path.name))
    zones: list[FileZone] = []
    others: list[str] = []
    for device in devices:
        driver = text_of(device / "name") or text_of(device / "device/name") or "?"
        for path in _attributes(device):
            label = _label(path)
            of_driver = (known for known in KNOWN if known.driver == driver)
            kind = next((known.kind for known in of_driver if re.fullmatch(known.pattern, label)), None)
            if kind is None:
                others.append(f"{driver} {label}".strip())
            else:
                zones.append(_zone(device, driver, path, label, kind))
    lacks = []
    if not zones and not others:
        lacks.append("no sensor of energy or power in /sys/class/hwmon")
    if others:
        lacks.append(f"sensors left out, as it is not known what they cover: {', '.join(sorted(set(others)))}")
    sockets = [zone for zone in zones if zone.kind == "package" and zone.name.startswith("amd_energy")]
    packages = _packages(sys)
    if packages and len(sockets) > packages:
        # amd_energy takes each NUMA node for a socket (num_possible_nodes()), and tells a package once for each in it.
        zones = [zone for zone in zones if zone not in sockets]
        lacks.append(f"amd_energy is left out: it shows {len(sockets)} sockets where there are {packages}")
    return Found(SOURCE, tuple(zones), tuple(lacks))


def _attributes(device: Path) -> Iterator[Path]:
    """One for each sensor: its average before its momentary value. Old drivers have them one directory further down."""
    seen: dict[str, Path] = {}
    for directory in (device, device / "device"):
        for path in sorted(directory.glob("*_*")):
            if ATTRIBUTE.fullmatch(path.name):
                seen.setdefault(path.name.partition("_")[0], path)
    yield from seen.values()


def _label(path: Path) -> str:
    sensor = path.name.partition("_")[0]
    return text_of(path.with_name(f"{sensor}_label")) or text_of(path.with_name(f"{sensor}_oem_info")) or ""


def _zone(device: Path, driver: str, path: Path, label: str, kind: Kind) -> FileZone:
    is_power = path.name.startswith("power")
    return FileZone(
        name=f"{driver} {label or device.name}",
        kind=kind,
        path=path,
        is_power=is_power,
        interval_seconds=POWER_INTERVAL_SECONDS if is_power else 1.0,
        denied=DENIED,
    )


def _packages(sys: Path) -> int:
    """Processors that have a CPU online; 0 if that is not told."""
    ids = (number_of(path) for path in (sys / "devices/system/cpu").glob("cpu[0-9]*/topology/physical_package_id"))
    return len({number for number in ids if number is not None})
