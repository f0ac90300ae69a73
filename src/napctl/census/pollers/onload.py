"""Onload, VMA and XLIO: by the library that LD_PRELOAD puts before libc's sockets, and by the device behind it.

The library alone is a bypass that is loaded; whether it does anything, its device tells. Onload opens /dev/onload for
each of its stacks (Onload User Guide, UG1586, https://docs.amd.com/r/en-US/ug1586-onload-user); VMA and XLIO open the
verbs of a NIC (README of libvma; https://docs.nvidia.com/networking/display/xliov3402). Without it every packet comes
through the kernel.

Onload was never looked at live, nor VMA or XLIO with a NIC: made from their documentation.
"""

from napctl.census.pollers import bus_devices
from napctl.census.pollers.detection import Detected
from napctl.census.pollers.suspects import Suspect, library
from napctl.model.census import PollerKind
from napctl.model.text import printable

__all__ = ["detect"]


ONLOAD_DEVICES = ("/dev/onload", "/dev/sfc_char")
LIBRARIES: tuple[tuple[str, PollerKind], ...] = (
    ("libonload.so", "Onload"),
    ("libxlio.so", "XLIO"),
    ("libvma.so", "VMA"),
)
REMEDIES: dict[PollerKind, str] = {
    "Onload": "Let its calls wait by interrupt sooner: a lower EF_POLL_USEC (0: no spinning), or EF_INT_DRIVEN=1.",
    "VMA": "Let its calls wait by interrupt sooner: lower VMA_RX_POLL and VMA_SELECT_POLL (0: no spinning).",
    "XLIO": "Let its calls wait by interrupt sooner: lower XLIO_RX_POLL and XLIO_SELECT_POLL (0: no spinning).",
}


def detect(suspect: Suspect) -> Detected | None:
    """A process with one of the libraries."""
    for name, kind in LIBRARIES:
        if mapped := library(suspect, name):
            opened = _opened(suspect, kind)
            evidence = f"{printable(mapped)} in its maps"
            what = "/dev/onload" if kind == "Onload" else "verbs of a NIC"
            return Detected(
                kind=kind,
                evidence=(evidence, *(f"{printable(each)} is open" for each in opened[:1])),
                devices=bus_devices.verbs_devices(suspect.names),
                idle="" if opened or suspect.trouble else f"it has no {what} open",
                preloaded=True,
                remedy=REMEDIES[kind],
            )
    return None


def _opened(suspect: Suspect, kind: PollerKind) -> list[str]:
    if kind == "Onload":
        return sorted(name for name in suspect.names if name.startswith(ONLOAD_DEVICES))
    return sorted(name for name in suspect.names if bus_devices.VERBS.match(name))
