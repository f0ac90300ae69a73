"""The service under real systemd: what it has attached outlives it, and nothing of it outlives its end."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from napctl import __version__
from tests.debian.conftest import BEFORE
from tests.debian.guest import Guest
from tests.debian.service import (
    DAEMON,
    GUARD,
    UNITS,
    Log,
    all_settings,
    every_request_succeeds,
    in_force,
    is_active,
    is_attached,
    is_policy_true,
    pid_of,
    settings,
    trace_writes,
    until,
    write_policy,
    written,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

LOOKED_SECONDS = 35.0
"""A settled target is looked at every 30 s,"""
SHORTLY_SECONDS = 5.0
"""and the end of a pause waited for."""
TAKEN_OVER = ("took over nginx", "took over the settings of e1000e0")
TIME_OF_PUTTING_BACK = r"sed -n 's/^\[ *\([0-9.]*\)\].*put back nginx.*/\1/p' | tail -n 1"
"""Of the guard, s since boot: it takes seconds to look at an emulated machine, in which the time to wait may pass."""
NO_RESTART = "/run/systemd/system/napctl.service.d/no-restart.conf"


@pytest.fixture
def service(guest: Guest) -> Iterator[Guest]:
    """It runs, and nginx is attached."""
    write_policy(guest)
    start(guest)
    yield guest
    guest.run(f"rm -f {NO_RESTART}; systemctl daemon-reload; systemctl stop {' '.join(UNITS)}")


def start(guest: Guest) -> None:
    log = Log(guest, DAEMON)
    started = guest.try_to(f"systemctl reset-failed; systemctl start {DAEMON}")
    assert started.status == 0, log.lines()
    until(lambda: is_policy_true(guest), log.lines)


def version_that_runs(guest: Guest) -> str:
    """As its metrics tell it, of which there are some soon."""
    command = "curl --silent http://127.0.0.1:9811/metrics | grep '^napctl_info{'"
    until(lambda: guest.try_to(command).status == 0)
    return guest.run(command).split('version="')[1].split('"')[0]


def test_nginx_is_attached_when_it_has_traffic_and_as_it_was_when_the_service_is_stopped(guest: Guest) -> None:
    before = all_settings(guest)
    trace_writes(guest)
    write_policy(guest)

    start(guest)

    attaching = "\n".join(written(guest))
    assert "netdev_nl_napi_set_doit" in attaching, "the trace knows a write when there is one"
    assert "ethnl_default_set_doit" in attaching
    assert "sys_ioctl" in attaching
    assert is_active(guest, GUARD) == "active"
    assert "attached" in guest.run("napctl why nginx.service")
    assert "rx-usecs 3 → 10" in guest.run("napctl why e1000e0")
    with every_request_succeeds(guest):
        guest.run(f"systemctl stop {DAEMON}")
    assert all_settings(guest) == before
    assert in_force(guest) == []
    assert is_active(guest, DAEMON) == "inactive"


def test_killed_under_load_it_is_started_again_and_takes_over_and_nothing_is_written(service: Guest) -> None:
    during, daemon = all_settings(service), pid_of(service)
    log = Log(service, *UNITS)
    trace_writes(service)

    with every_request_succeeds(service):
        service.run(f"kill -9 {daemon}")
        log.await_lines(*TAKEN_OVER)
        until(lambda: is_active(service, DAEMON) == "active")

    assert pid_of(service) not in (0, daemon)
    assert all_settings(service) == during
    assert in_force(service) == ["applied", "attached"]
    assert written(service) == []
    assert not any("put back" in each for each in log.lines())


def test_killed_for_good_the_guard_restores_when_its_time_has_come(guest: Guest) -> None:
    before = all_settings(guest)
    write_policy(guest, 'guard-wait = "10s"')
    start(guest)
    guest.run(f"mkdir -p $(dirname {NO_RESTART}); printf '[Service]\\nRestart=no\\n' >{NO_RESTART}")
    guest.run("systemctl daemon-reload")
    log = Log(guest, GUARD)

    with every_request_succeeds(guest):
        killed_at = float(guest.run(f"cut -d ' ' -f 1 /proc/uptime; kill -9 {pid_of(guest)}"))
        log.await_lines("put back nginx", "on e1000e0")

    put_back_at = float(
        guest.run(f"journalctl --boot --unit={GUARD} --output=short-monotonic | {TIME_OF_PUTTING_BACK}")
    )
    assert put_back_at >= killed_at + 10, "it waits for another one"
    assert is_active(guest, DAEMON) == "failed"
    assert all_settings(guest) == before
    guest.run(f"rm {NO_RESTART}; systemctl daemon-reload")
    start(guest)
    guest.run(f"systemctl stop {' '.join(UNITS)}")


def test_an_upgrade_under_load_writes_nothing_and_what_runs_is_the_new_one(
    guest: Guest, package: Path, package_before: Path
) -> None:
    guest.run("rm -rf /var/lib/napctl")  # what a later version left is refused
    guest.run(f"dpkg --install /host{package_before}")
    write_policy(guest)
    start(guest)
    assert version_that_runs(guest) == BEFORE
    during, daemon, guard = all_settings(guest), pid_of(guest), pid_of(guest, GUARD)
    log = Log(guest, *UNITS)
    trace_writes(guest)

    with every_request_succeeds(guest):
        guest.run(f"dpkg --install /host{package}")
        taken_over = log.await_lines(*TAKEN_OVER)
        until(lambda: is_active(guest, DAEMON) == "active")

    assert written(guest) == []
    assert pid_of(guest) == daemon
    assert guest.run(f"cat /proc/{daemon}/comm").strip() == "napctl"
    assert pid_of(guest, GUARD) not in (0, guard)
    assert log.await_lines(f"Started {GUARD}") < taken_over, "somebody watches while one becomes the other"
    assert all_settings(guest) == during
    assert in_force(guest) == ["applied", "attached"]
    assert version_that_runs(guest) == __version__
    guest.run(f"systemctl stop {' '.join(UNITS)}")


def test_it_stays_attached_over_a_reload_and_a_reset_of_the_link(service: Guest) -> None:
    during, daemon, worker = settings(service), pid_of(service), worker_of(service)
    log = Log(service, DAEMON)

    service.run("systemctl reload nginx.service")
    until(lambda: worker_of(service) != worker and is_attached(service), log.lines)
    assert settings(service) == during

    service.run("ip link set e1000e0 down; sleep 1; ip link set e1000e0 up")
    log.await_lines("e1000e0: link up")
    with every_request_succeeds(service):
        pass
    until(lambda: settings(service) == during and is_attached(service), log.lines)
    assert pid_of(service) == daemon
    service.run("napctl attached")


def test_a_clock_that_jumps_changes_nothing_and_ends_no_pause(service: Guest) -> None:
    during, log = all_settings(service), Log(service, DAEMON)
    trace_writes(service)

    with every_request_succeeds(service):
        service.run("date --set '+1 day'")
        time.sleep(LOOKED_SECONDS)
        service.run("date --set '-2 days'")
        time.sleep(LOOKED_SECONDS)
    assert (written(service), log.lines()) == ([], [])
    assert all_settings(service) == during

    service.run("napctl pause 10m; date --set '+1 day'")
    time.sleep(SHORTLY_SECONDS)
    assert not is_attached(service)
    service.run("napctl pause --end")
    until(lambda: is_policy_true(service), log.lines)


def worker_of(guest: Guest) -> str:
    """Pid of nginx's worker that takes connections; empty in the moment in which there is none."""
    return guest.try_to("pgrep --full 'nginx: worker process$'").stdout.strip()


def test_a_policy_that_keeps_leaves_all_as_it_is_for_the_next_start(guest: Guest) -> None:
    before = all_settings(guest)
    write_policy(guest)
    start(guest)
    during, log = all_settings(guest), Log(guest, DAEMON)
    write_policy(guest, 'on-stop = "keep"')
    guest.run(f"systemctl reload {DAEMON}")
    log.await_lines("the policy has changed")
    trace_writes(guest)

    with every_request_succeeds(guest):
        guest.run(f"systemctl stop {' '.join(UNITS)}")
        stopped = all_settings(guest)
        guest.run(f"systemctl start {DAEMON}")
        log.await_lines(*TAKEN_OVER)

    assert stopped == during
    assert all_settings(guest) == during
    assert written(guest) == []
    write_policy(guest)
    guest.run(f"systemctl reload {DAEMON}")
    until(lambda: sum("the policy has changed" in each for each in log.lines()) == 2)
    guest.run(f"systemctl stop {' '.join(UNITS)}")
    assert all_settings(guest) == before
    assert in_force(guest) == []
