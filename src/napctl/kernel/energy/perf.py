"""RAPL counters through perf's `power` PMU: 64 bits wide, the kernel takes care of the wraps.

arch/x86/events/rapl.c; perf_event_open(2); Documentation/ABI/testing/sysfs-bus-event_source-devices-events.
"""

import errno
import os
import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from napctl.kernel.energy.zones import Found, Unreadable, Zone, number_of, text_of
from napctl.kernel.perf_counters import PerfEvent, open_event
from napctl.model.cpus import parse_cpus
from napctl.model.energy import Kind

__all__ = ["perf_zones"]


SOURCE = "perf"
EVENTS: dict[str, Kind] = {
    "energy-pkg": "package",
    "energy-cores": "core",
    "energy-gpu": "uncore",
    "energy-ram": "dram",
    "energy-psys": "psys",
}
DENIED = "permission denied: counting for a whole CPU needs CAP_PERFMON, or kernel.perf_event_paranoid below 1"


@dataclass(frozen=True)
class PerfZone:
    """One event on one CPU: the one that reads its package's counter. Counts from when it was opened."""

    name: str
    kind: Kind
    fd: int
    """-1: it could not be opened, and `refused` tells why."""
    uj_per_count: Fraction
    refused: str = ""
    is_power: bool = False
    wrap_uj: int | None = None
    interval_seconds: float = 1.0
    resolution: int | None = None
    """Not told: the scale is finer than the register behind."""

    def read(self) -> int:
        """µJ since it was opened. Raises Unreadable."""
        if self.fd < 0:
            raise Unreadable(self.refused)
        try:
            data = os.read(self.fd, 8)
        except OSError as error:
            raise Unreadable(f"reading the event: {error.strerror}") from None
        if len(data) != 8:  # perf_read() gives nothing for an event in its error state
            raise Unreadable("the event counts no more")
        (count,) = struct.unpack("=Q", data)
        return int(count * self.uj_per_count)

    def close(self) -> None:
        """Close the event."""
        if self.fd >= 0:
            os.close(self.fd)


def perf_zones(sys: Path) -> Found:
    """The energy events below `sys`/bus/event_source/devices/power, each on every CPU of the cpumask, and held open."""
    root = sys / "bus/event_source/devices/power"
    pmu = number_of(root / "type")
    if pmu is None:
        return Found(SOURCE, lacks=("this kernel has no energy events (PMU 'power')",))
    zones: list[Zone] = []
    lacks = []
    for event, kind in EVENTS.items():
        if not (root / "events" / event).exists():
            continue
        config, scale = _config(root / "events" / event), _scale(root / "events" / event)
        if config is None or scale is None:
            lacks.append(f"the event {event} is left out: its code or its unit is none that is known")
            continue
        for cpu in sorted(parse_cpus(text_of(root / "cpumask") or "")):
            fd, refused = _opened(pmu, config, cpu)
            zones.append(PerfZone(f"{event} on CPU {cpu}", kind, fd, scale, refused))
    if not zones and not lacks:
        lacks.append("the PMU 'power' has no energy events")
    return Found(SOURCE, tuple(zones), tuple(lacks))


def _config(path: Path) -> int | None:
    match = re.fullmatch(r"event=(0x[0-9a-fA-F]+|\d+)", text_of(path) or "")
    return int(match[1], 0) if match else None


def _scale(path: Path) -> Fraction | None:
    """µJ for each count, exactly."""
    if text_of(path.with_name(f"{path.name}.unit")) != "Joules":
        return None
    try:
        return Fraction(text_of(path.with_name(f"{path.name}.scale")) or "") * 10**6
    except ValueError:
        return None


def _opened(pmu: int, config: int, cpu: int) -> tuple[int, str]:
    """Its descriptor and "", or -1 and why not."""
    try:
        return open_event(PerfEvent(pmu, config), -1, cpu), ""
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM)
        return -1, DENIED if denied else f"opening the event: {error.strerror}"
