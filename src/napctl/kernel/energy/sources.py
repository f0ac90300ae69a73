"""All energy sources of a machine, the best first, and why it has none."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from napctl.kernel.energy.hwmon import hwmon_zones
from napctl.kernel.energy.ipmi import ipmi_zones
from napctl.kernel.energy.perf import perf_zones
from napctl.kernel.energy.powercap import powercap_zones
from napctl.kernel.energy.zones import Found, text_of

__all__ = ["Roots", "all_sources", "why_nothing"]


AMD = frozenset({"AuthenticAMD", "HygonGenuine"})


@dataclass(frozen=True)
class Roots:
    """Where everything is looked for."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    ipmitool: str = "ipmitool"


def all_sources(roots: Roots) -> list[Found]:
    """What each source has, the one that is preferred first. Their zones hold descriptors: close them.

    powercap before perf, as both tell the same registers and powercap names its packages; counters before powers; the
    BMC last, as it is slow and coarse.
    """
    amd = _of_processor(roots.proc, "vendor_id") in AMD
    return [
        powercap_zones(roots.sys, amd=amd),
        perf_zones(roots.sys),
        hwmon_zones(roots.sys),
        ipmi_zones(roots.dev, roots.ipmitool),
    ]


def why_nothing(roots: Roots, sources: Iterable[Found]) -> str:
    """The most likely reason why no source gives anything, as a clause."""
    if any(found.zones for found in sources):
        return "there are counters, but none can be read"
    if "hypervisor" in (_of_processor(roots.proc, "flags") or "").split():
        return "this is a virtual machine, and its hypervisor shows it no energy counter"
    if _of_processor(roots.proc, "vendor_id"):
        return "no source has an energy counter (on Intel and AMD: is the module intel_rapl_msr loaded?)"
    return "no source has an energy counter"


def _of_processor(proc: Path, field: str) -> str | None:
    """A line of the first processor in cpuinfo (proc_cpuinfo(5)); None where the architecture has none."""
    for line in (text_of(proc / "cpuinfo") or "").splitlines():
        label, _, value = line.partition(":")
        if label.strip() == field:
            return value.strip()
    return None
