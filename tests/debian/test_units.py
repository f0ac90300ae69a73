"""The units of the package, and what its scripts do to a system that runs: real systemd, nginx, a NIC's driver."""

import json

import pytest

from tests.debian.guest import Guest
from tests.debian.service import DAEMON, UNITS, Log, is_active, is_attached, settings, until, write_policy

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

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
        guest, "napctl.service", "status e1000e0", "attach nginx.service", "attached --json --interval 10"
    )
    during = settings(guest)
    confined(guest, "napctl-guard.service", "detach --all")

    assert "not known" not in status + attaching, "nothing was out of reach"
    (standing,) = json.loads(now)["attachments"]
    assert standing["latency"], "the probes were loaded"
    assert "nginx" in now
    assert during["irq_suspend_timeout_ns"] == 20_000_000
    assert settings(guest) == before


BEYOND = """
[service]
metrics = "10.0.0.1:9811"
metrics-beyond-loopback = true
"""
DROP_IN = "/etc/napctl/policy.d/beyond.toml"
GENERATOR = "/etc/systemd/system-generators/napctl-generator"
"""What stands there takes the place of the package's, as of units."""
SCRAPE = "curl --silent --max-time 5 http://10.0.0.1:9811/metrics"
NO_ANSWER = 28
BY_HAND = f"/etc/systemd/system/{DAEMON}.d"
"""Where `systemctl edit` writes."""
RELOAD = "`systemctl daemon-reload` and a restart of the unit let other machines reach 10.0.0.1"


def test_metrics_for_other_machines_are_reached_by_these_and_not_while_systemd_knows_nothing_of_it(
    guest: Guest,
) -> None:
    write_policy(guest)
    guest.run(f"mkdir -p /etc/napctl/policy.d; echo '{BEYOND}' >{DROP_IN}")
    try:
        assert guest.run("napctl daemon --check").strip().endswith(RELOAD)
        guest.run(f"systemctl daemon-reload; systemctl start {DAEMON}")
        until(lambda: is_scraped(guest))
        assert RELOAD not in guest.run("napctl daemon --check")
        reached = guest.run(f"systemctl show --property IPAddressAllow {DAEMON}")
        assert "0.0.0.0/0" in reached
        assert "::/0" in reached

        guest.run(f"mkdir -p $(dirname {GENERATOR}); ln -s /dev/null {GENERATOR}; systemctl daemon-reload")
        log = Log(guest, DAEMON)
        guest.run(f"systemctl restart {DAEMON}")
        log.await_line(RELOAD)
        until(lambda: bool(guest.run("ss -Hltn 'sport = :9811'")))
        refused = [guest.try_to(f"{where}{SCRAPE}").status for where in ("ip netns exec peer ", "")]
        assert refused == [NO_ANSWER] * 2, "neither from outside, nor by that address from here"

        guest.run(f"mkdir -p {BY_HAND}; printf '[Service]\\nIPAddressAllow=10.0.0.0/24\\n' >{BY_HAND}/override.conf")
        guest.run("systemctl daemon-reload")
        assert RELOAD not in guest.run("napctl daemon --check"), "an administrator lets others in"
        log = Log(guest, DAEMON)
        guest.run(f"systemctl restart {DAEMON}")
        until(lambda: is_scraped(guest))
        assert all(RELOAD not in line for line in log.lines())
        guest.run(f"rm -r {BY_HAND}")
        guest.run(f"rm {GENERATOR}; systemctl daemon-reload; systemctl restart {DAEMON}")
        until(lambda: is_scraped(guest))

        for text in ('[service]\nmetrics = "127.0.0.1:9811"', f"{BEYOND}\nmetrics =", f"{BEYOND}\nmetricz = 1"):
            guest.run(f"echo '{text}' >{DROP_IN}; systemctl daemon-reload")
            left = guest.run(f"systemctl show --property IPAddressAllow {DAEMON}")
            assert "0.0.0.0/0" not in left, "and a policy that cannot be read fails nothing"
    finally:
        guest.run(f"rm -rf {GENERATOR} {DROP_IN} {BY_HAND}; systemctl daemon-reload; systemctl stop {' '.join(UNITS)}")


def is_scraped(guest: Guest) -> bool:
    """From the other end of the cable."""
    return "napctl_info{" in guest.try_to(f"ip netns exec peer {SCRAPE}").stdout


def test_another_network_namespace_is_within_reach(guest: Guest) -> None:
    (said,) = confined(guest, "napctl.service", "status --netns peer")
    assert "virtio0" in said
    assert "not known" not in said


def test_removal_stops_the_service_and_restores_and_purge_leaves_nothing(guest: Guest) -> None:
    before = settings(guest)
    write_policy(guest)
    guest.run(f"systemctl enable --now {DAEMON}")
    until(lambda: is_attached(guest))
    assert settings(guest) != before
    guest.run("cp -r /usr/lib/python3/dist-packages/napctl /run/napctl-code")

    guest.run("dpkg --remove napctl")

    assert [is_active(guest, unit) for unit in UNITS] == ["inactive"] * 2
    assert not is_attached(guest)
    guest.run("dpkg --purge napctl")
    assert guest.run("find / -xdev -path '*napctl*' -not -path '/var/cache/man/*'") == ""
    with_what_was = "cd /run && ln -sfn napctl-code napctl && python3 -m napctl"
    assert settings(guest, with_what_was) == before
