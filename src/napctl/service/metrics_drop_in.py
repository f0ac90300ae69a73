"""The drop-in by which napctl.service follows the policy's address for metrics: systemd's generator of that writes it.

deploy/systemd/napctl-generator runs this. The unit lets none but this machine reach it; systemd filters by the other
side's address, which no policy names, so that metrics for other machines are for all that get to the address.
"""

import os
import sys
from pathlib import Path

from napctl.kernel.cgroups import group_of
from napctl.model.errors import NapctlError
from napctl.model.policy import MetricsPlace, Policy
from napctl.service.policy_file import POLICY_PATH, read_policy

__all__ = ["DAEMON_RELOAD", "drop_in_of", "is_generated", "reload_reminder", "write_drop_in"]


UNIT = "napctl.service"
NAME = Path(f"{UNIT}.d/50-metrics.conf")
"""One of an administrator has the last word if its name comes later, as override.conf of `systemctl edit` does."""
GENERATED = Path("/run/systemd/generator")
"""Where systemd lets generators write: emptied at each boot and `systemctl daemon-reload`."""
DAEMON_RELOAD = "`systemctl daemon-reload` and a restart of the unit let other machines reach"
"""A sentence that the address ends."""


def drop_in_of(policy: Policy) -> str | None:
    """Its text; None: the unit is as it should be."""
    place = policy.service.metrics
    if place is None or not place.is_beyond_loopback:
        return None
    return f"# The policy serves metrics on {place.address}.\n[Service]\nIPAddressAllow=any\n"


def write_drop_in(directory: Path, policy: Path = POLICY_PATH) -> None:
    """Below systemd's directory for this. Raises BadInput for a policy that cannot be read, and OSError."""
    text = drop_in_of(read_policy(policy))
    if text is not None:
        path = directory / NAME
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def is_generated(directory: Path = GENERATED) -> bool:
    """Whether systemd has that drop-in."""
    return (directory / NAME).exists()


def reload_reminder(place: MetricsPlace | None) -> str:
    """What is to be done where the policy serves metrics to other machines and systemd keeps them from this process.
    Empty: nothing."""
    if place is None or not place.is_beyond_loopback or is_generated():
        return ""
    in_the_unit = (group_of(os.getpid()) or "").endswith(f"/{UNIT}")
    return f"metrics: {DAEMON_RELOAD} {place.address}; until then this one alone does" if in_the_unit else ""


if __name__ == "__main__":
    try:
        write_drop_in(Path(sys.argv[1]))
    except (NapctlError, OSError) as error:
        sys.exit(f"napctl-generator: metrics are for this machine alone: {error}")
