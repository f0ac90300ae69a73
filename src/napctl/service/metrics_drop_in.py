"""The drop-in by which napctl.service follows the policy's address for metrics: systemd's generator of that writes it.

deploy/systemd/napctl-generator runs this. The unit lets none but this machine reach it; systemd filters by the other
side's address, which no policy names, so that metrics for other machines are for all that get to the address.
"""

import ipaddress
import os
import sys
from contextlib import suppress
from pathlib import Path

from napctl.kernel.cgroups import group_of
from napctl.kernel.service_manager import unit_properties
from napctl.model.errors import NapctlError
from napctl.model.policy import MetricsPlace, Policy
from napctl.service.policy_file import POLICY_PATH, read_policy

__all__ = ["DAEMON_RELOAD", "MetricsReach", "drop_in_of", "lets_others_in", "write_drop_in"]


UNIT = "napctl.service"
NAME = Path(f"{UNIT}.d/50-metrics.conf")
"""One of an administrator has the last word if its name comes later, as override.conf of `systemctl edit` does."""
DAEMON_RELOAD = "`systemctl daemon-reload` and a restart of the unit let other machines reach"
"""A sentence that the address ends."""
BY_HAND = (
    "the unit lets this machine alone reach {}; IPAddressAllow by `systemctl edit napctl`, and a restart, let others"
)
"""Where the policy is not the one that the generator reads."""
ALLOW, DENY = "IPAddressAllow", "IPAddressDeny"


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


def lets_others_in() -> bool:
    """Whether systemd lets other machines reach the unit, as it has loaded it: by that drop-in or an administrator's.
    So it does where nothing is known of it, as no systemd runs."""
    told = unit_properties(UNIT, ALLOW, DENY)
    return told is None or not told[DENY] or not all(map(_is_loopback, told[ALLOW].split()))


def _is_loopback(text: str) -> bool:
    """Of an address with its prefix: "::1/128"."""
    with suppress(ValueError):
        return ipaddress.ip_network(text, strict=False).is_loopback
    return False


class MetricsReach:
    """Whom systemd lets reach this process. Found out as it starts: a unit that runs is given nothing else.

    `path`: of its policy.
    """

    def __init__(self, path: Path):
        self._is_followed = path == POLICY_PATH
        """By the generator."""
        in_the_unit = (group_of(os.getpid()) or "").endswith(f"/{UNIT}")
        self._is_closed = in_the_unit and not lets_others_in()

    def reminder(self, place: MetricsPlace | None) -> str:
        """What is to be done where the policy serves metrics to other machines and systemd keeps them from this
        process. Empty: nothing."""
        if place is None or not place.is_beyond_loopback or not self._is_closed:
            return ""
        if not self._is_followed:
            return f"metrics: {BY_HAND.format(place.address)}"
        return f"metrics: {DAEMON_RELOAD} {place.address}; until then this one alone does"


if __name__ == "__main__":
    try:
        write_drop_in(Path(sys.argv[1]))
    except (NapctlError, OSError) as error:
        sys.exit(f"napctl-generator: metrics are for this machine alone: {error}")
