"""Power of the whole machine as its BMC tells it (DCMI, "Get Power Reading"), through ipmitool: whole watts.

A BMC takes a new reading about once a second: of a span of a few seconds this tells little.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from napctl.kernel.energy.zones import Found, Unreadable
from napctl.model.energy import Kind

__all__ = ["ipmi_zones", "power_uw"]


SOURCE = "IPMI"
DEVICES = ("ipmi0", "ipmi/0", "ipmidev/0")
"""Where ipmitool looks for the BMC."""
TIMEOUT_SECONDS = 10.0
WATT = 1_000_000
"""µW."""
NO_READING = 0xFFFF
"""All ones in the field of two bytes (DCMI 1.5, Get Power Reading): what a BMC without a reading answers."""


@dataclass(frozen=True)
class IpmiZone:
    """The machine's power."""

    tool: str
    device: Path
    name: str = "DCMI power reading"
    kind: Kind = "platform"
    is_power: bool = True
    wrap_uj: int | None = None
    interval_seconds: float = 1.0
    resolution: int | None = WATT

    def read(self) -> int:
        """µW, in steps of 1 W. Takes as long as the BMC does, often some tenths of a second. Raises Unreadable."""
        if not os.access(self.device, os.R_OK | os.W_OK):
            raise Unreadable(f"{self.device} cannot be opened: run as root, or be given rights to it")
        try:
            done = subprocess.run(
                [self.tool, "dcmi", "power", "reading"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_SECONDS,
                check=False,
                env=os.environ | {"LC_ALL": "C"},
                start_new_session=True,  # Ctrl-C is not meant for it
            )
        except OSError as error:
            raise Unreadable(f"{self.tool}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise Unreadable(f"the BMC gave no answer within {TIMEOUT_SECONDS:.0f} s") from None
        return power_uw(done.stdout, done.stderr)

    def close(self) -> None:
        """Nothing is held."""


def ipmi_zones(dev: Path, tool: str) -> Found:
    """The BMC behind `dev`, if it is there and `tool` (ipmitool) is too."""
    device = next((dev / name for name in DEVICES if (dev / name).exists()), None)
    if device is None:
        return Found(SOURCE, lacks=("no BMC (/dev/ipmi0)",))
    path = shutil.which(tool)
    if path is None:
        return Found(SOURCE, lacks=("there is a BMC, but ipmitool is not installed",))
    return Found(SOURCE, (IpmiZone(path, device),))


def power_uw(output: str, errors: str = "") -> int:
    """The momentary power in what `ipmitool dcmi power reading` prints, µW. Raises Unreadable."""
    match = re.search(r"^\s*Instantaneous power reading:\s+(\d+) Watts", output, re.MULTILINE)
    state = re.search(r"^\s*Power reading state is:\s+(\S.*?)\s*$", output, re.MULTILINE)
    if match is None:
        said = next((line.strip() for line in (errors or output).splitlines() if line.strip()), "nothing")
        raise Unreadable(f"the BMC tells no power: ipmitool says '{said}'")
    if state is not None and state[1] != "activated":
        raise Unreadable(f"the BMC does not measure power: its state is '{state[1]}'")
    watts = int(match[1])
    if watts == NO_READING:
        raise Unreadable("the BMC tells no power: it answers with all ones, 65,535 W")
    return watts * WATT
