"""The units of the package, and what its scripts do to a system that runs: real systemd, nginx, a NIC's driver."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.debian.guest import Guest

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

UNITS = ("napctl.service", "napctl-guard.service")
CONFINEMENT = r"""
confined() {
    properties=()
    while IFS= read -r property; do properties+=(--property "$property"); done < <(
        sed '/^\[Service\]/,/^\[Install\]/!d' "/usr/lib/systemd/system/$unit" | grep '^[A-Z]' |
            grep -v -E '^(Type|ExecStart|ExecReload|WatchdogSec|Restart.*)='
    )
    systemd-run --quiet --pipe --wait "${properties[@]}" -- "$@"
}
"""


def confined(guest: Guest, unit: str, *commands: str) -> list[str]:
    """What commands of napctl write that may do no more than the unit."""
    said = []
    for command in commands:
        script = f"bash -c {quoted(f'unit={unit}{CONFINEMENT}confined napctl {command}')}"
        said.append(guest.run(script))
    return said


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def settings(guest: Guest) -> Any:
    """Of the NAPI instance that nginx is reached by."""
    (device,) = json.loads(guest.run("napctl status --json e1000e0"))["devices"]
    (napi,) = device["napis"]
    return napi["settings"]


def attach(guest: Guest) -> None:
    guest.run("napctl attach nginx.service --window 0s")


def attached(guest: Guest) -> list[str]:
    said = json.loads(guest.run("napctl history --json"))
    return [each["state"] for each in said["transactions"] if each["state"] != "restored"]


STAND_IN = r"""
for unit in napctl napctl-guard; do
    mkdir -p /run/systemd/system/$unit.service.d
    cat >/run/systemd/system/$unit.service.d/stand-in.conf <<'END'
[Service]
Type=exec
WatchdogSec=0
ExecStart=
ExecStart=/bin/bash -c 'trap "touch /var/lib/napctl/told" USR2; trap "exit 0" TERM; while :; do sleep 0.5; done'
END
done
systemctl daemon-reload
systemctl start napctl.service
"""
"""What a daemon and its guard are to the scripts of the package: processes that can be told to become the new ones."""
WITHOUT_STAND_IN = "rm -r /run/systemd/system/napctl*.service.d; systemctl daemon-reload"


def pid_of(guest: Guest, unit: str) -> int:
    return int(guest.run(f"systemctl show --value --property MainPID {unit}"))


def test_they_are_installed_and_neither_enabled_nor_started(guest: Guest) -> None:
    for unit in UNITS:
        assert guest.run(f"systemctl show --value --property LoadState {unit}").strip() == "loaded"
        assert guest.run(f"systemctl show --value --property ActiveState {unit}").strip() == "inactive"
    assert guest.try_to("systemctl is-enabled napctl.service").stdout.strip() == "disabled"


def test_systemd_has_nothing_to_say_about_them(guest: Guest) -> None:
    done = guest.try_to(f"systemd-analyze verify {' '.join(UNITS)}")
    assert (done.status, done.stdout, done.stderr) == (0, "", "")


def test_they_are_exposed_at_most_at_4(guest: Guest) -> None:
    for unit in UNITS:
        guest.run(f"systemd-analyze security --offline=true --threshold=40 {unit}")


def test_what_they_may_do_is_all_that_it_takes(guest: Guest) -> None:
    before = settings(guest)

    status, attaching, now = confined(
        guest, "napctl.service", "status e1000e0", "attach nginx.service", "attached --json"
    )
    during = settings(guest)
    confined(guest, "napctl-guard.service", "detach --all")

    assert "not known" not in status + attaching, "nothing was out of reach"
    assert "server-side latency" in attaching, "the probes were loaded"
    assert "nginx" in now
    assert during["irq_suspend_timeout_ns"] == 20_000_000
    assert settings(guest) == before


def test_another_network_namespace_is_within_reach(guest: Guest) -> None:
    (said,) = confined(guest, "napctl.service", "status --netns peer")
    assert "virtio0" in said
    assert "not known" not in said


def test_an_upgrade_keeps_attachments_and_tells_the_daemon_which_goes_on(guest: Guest, package: Path) -> None:
    guest.run(STAND_IN)
    daemon, guard = (pid_of(guest, unit) for unit in UNITS)
    attach(guest)
    during = settings(guest)

    guest.run(f"dpkg --install /host{package}")
    guest.run("for _ in $(seq 100); do test -e /var/lib/napctl/told && exit; sleep 0.1; done; exit 1")

    assert pid_of(guest, "napctl.service") == daemon
    assert pid_of(guest, "napctl-guard.service") not in (0, guard)
    assert settings(guest) == during
    assert attached(guest) == ["attached"]
    guest.run(f"systemctl stop {' '.join(UNITS)}; {WITHOUT_STAND_IN}")


def test_removal_stops_the_service_and_restores_and_purge_leaves_nothing(guest: Guest) -> None:
    before = settings(guest)
    guest.run(STAND_IN)
    attach(guest)
    assert settings(guest) != before
    guest.run("cp -r /usr/lib/python3/dist-packages/napctl /run/napctl-code")

    guest.run("dpkg --remove napctl")

    assert [guest.try_to(f"systemctl is-active {unit}").stdout.strip() for unit in UNITS] == ["inactive"] * 2
    guest.run(f"{WITHOUT_STAND_IN}; dpkg --purge napctl")
    assert guest.run("find / -xdev -path '*napctl*' -not -path '/var/cache/man/*'") == ""
    with_what_was = "cd /run && ln -sfn napctl-code napctl && python3 -m napctl status --json e1000e0"
    (device,) = json.loads(guest.run(with_what_was))["devices"]
    assert device["napis"][0]["settings"] == before
