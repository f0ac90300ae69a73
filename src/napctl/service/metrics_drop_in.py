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
ALLOW, DENY, DROP_INS = "IPAddressAllow", "IPAddressDeny", "DropInPaths"
HANDED_ON = "NAPCTL_REACH"
"""The variable of the environment for the program that this process executes itself anew as: its pid, and what it has
found out."""
CLOSED, OPEN = "closed", "open"


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


def lets_others_in(*, by_hand: bool = False) -> bool:
    """Whether systemd lets other machines reach the unit, as it has loaded it: by that drop-in or (`by_hand`: only) an
    administrator's. So it does where nothing is known of it, as no systemd runs."""
    told = unit_properties(UNIT, ALLOW, DENY, DROP_INS)
    if told is None or not told[DENY]:
        return True
    if by_hand and any(each.endswith(f"/{NAME}") for each in told[DROP_INS].split()):
        return False
    return not all(map(_is_loopback, told[ALLOW].split()))


def _is_loopback(text: str) -> bool:
    """Of an address with its prefix: "::1/128"."""
    with suppress(ValueError):
        return ipaddress.ip_network(text, strict=False).is_loopback
    return False


class MetricsReach:
    """Whom systemd lets reach this process: a unit that runs is given nothing else.

    systemd tells what it has loaded, which may have come later. It is asked when it first matters, as a busy one may
    take seconds to answer. `path`: of the policy of this process.
    """

    def __init__(self, path: Path):
        self._is_followed = path == POLICY_PATH
        """By the generator."""
        self._in_the_unit = (group_of(os.getpid()) or "").endswith(f"/{UNIT}")
        pid, _, self._told = os.environ.get(HANDED_ON, "").partition(" ")
        self._just_started = pid != str(os.getpid())
        if self._just_started:
            self._hand_on("")

    def reminder(self, place: MetricsPlace | None) -> str:
        """What is to be done where the policy serves metrics to other machines and systemd keeps them from this
        process. Empty: nothing."""
        just_started, self._just_started = self._just_started, False
        if place is None or not place.is_beyond_loopback or not self._in_the_unit:
            return ""
        if not self._told:  # the drop-in of a policy that has asked for it since is not for this process
            self._hand_on(OPEN if lets_others_in(by_hand=not just_started) else CLOSED)
        if self._told == OPEN:
            return ""
        if not self._is_followed:
            return f"metrics: {BY_HAND.format(place.address)}"
        return f"metrics: {DAEMON_RELOAD} {place.address}; until then this one alone does"

    def _hand_on(self, told: str) -> None:
        self._told = told
        os.environ[HANDED_ON] = f"{os.getpid()} {told}"


if __name__ == "__main__":
    try:
        write_drop_in(Path(sys.argv[1]))
    except (NapctlError, OSError) as error:
        sys.exit(f"napctl-generator: metrics are for this machine alone: {error}")
