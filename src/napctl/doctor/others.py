"""The rule about other programs that set what napctl has set as well."""

from collections.abc import Iterator

from napctl.doctor.facts import Rule
from napctl.model.finding import Checkup, Evidence, Finding
from napctl.model.other_manager import touched
from napctl.model.text import each

__all__ = ["RULES"]


BASIS = {
    "tuned": "tuned.conf(5), plugin net",
    "NetworkManager": "nm-settings-nmcli(5), ethtool setting",
    "systemd-udevd": "systemd.link(5)",
}


def set_by_two(seen: Checkup) -> Iterator[Finding]:
    """Another manager's files set what napctl has in force: its next turn takes that away."""
    devices = {device.name for device in seen.machine.devices}
    held = [one for one in seen.held if one.device in devices]
    for manager in seen.managers:
        pairs = touched(manager, held)
        if not pairs:
            continue
        where = each(dict.fromkeys(one.device for one, _ in pairs))
        what = each(dict.fromkeys(one.what for one, _ in pairs))
        sure = all(touch.devices for _, touch in pairs)
        yield Finding(
            rule="set-by-two",
            severity="risk",
            where=where,
            title=f"{manager.name} {'sets' if sure else 'may set'} {what} of {where}, and so does napctl",
            evidence=(
                *(
                    Evidence(text=f"it sets {touch.what} of {each(touch.devices) if touch.devices else 'devices'}",
                             source=touch.source)
                    for touch in dict.fromkeys(touch for _, touch in pairs)
                ),
                Evidence(text=f"{manager.name} is process {manager.pid}", source="/proc"),
                Evidence(text=f"in force: {each(f'{one.what} of {one.device}' for one, _ in pairs)}",
                         source="napctl's journal"),
            ),
            consequence=f"It does so {manager.how}; what napctl has set is lost then. The service sets it again twice, "
            "and leaves it to the other at the third time within ten minutes.",
            remedy="Let one of them set it: take it out of the named file, or out of the policy.",
            certainty="likely" if sure else "possible",
            basis=BASIS.get(manager.name, "its documentation"),
        )  # fmt: skip


RULES = (Rule("set-by-two", set_by_two),)
