"""A NIC that a process drives by vfio or uio, by a library that is not known here (sources: bus_devices.py)."""

from napctl.census.pollers import bus_devices
from napctl.census.pollers.detection import Detected
from napctl.census.pollers.suspects import Suspect

__all__ = ["detect"]


def detect(suspect: Suspect) -> Detected | None:
    """Whoever has a NIC so, and is nothing else that is known: a virtual machine as well."""
    devices = bus_devices.drivers_devices(suspect.names)
    if not devices:
        return None
    return Detected(
        kind="user-space driver",
        evidence=tuple(f"it drives {device} [vfio, uio]" for device in devices),
        devices=devices,
        of_kernel=False,
    )
