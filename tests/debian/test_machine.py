"""What happens to the machine while the service runs: another manager, CPUs that go and come, a sleep."""

from collections.abc import Iterator

import pytest

from tests.debian.guest import Guest
from tests.debian.service import (
    DAEMON,
    UNITS,
    Log,
    all_settings,
    every_request_succeeds,
    in_force,
    is_attached,
    is_policy_true,
    pid_of,
    until,
    write_policy,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

METRICS = "curl --silent http://127.0.0.1:9811/metrics"
LOOK_SECONDS = 180
"""Another manager is looked for every 60 s."""
FREEZE = """
sync
echo 0 >/sys/class/rtc/rtc0/wakealarm
echo +6 >/sys/class/rtc/rtc0/wakealarm
echo freeze >/sys/power/state
"""
"""To sleep, from which the clock wakes it."""


@pytest.fixture
def service(guest: Guest) -> Iterator[Guest]:
    """It runs, and nginx is attached."""
    write_policy(guest)
    log = Log(guest, DAEMON)
    guest.run(f"systemctl reset-failed; systemctl start {DAEMON}")
    until(lambda: is_policy_true(guest), log.lines)
    yield guest
    guest.run(f"systemctl stop {' '.join(UNITS)}")


def managers(guest: Guest) -> list[str]:
    """As the metrics have them."""
    return [each for each in guest.run(METRICS).splitlines() if each.startswith("napctl_other_manager_info{")]


def test_irqbalance_is_named_once_when_it_comes_and_when_it_goes(service: Guest) -> None:
    log, sample = Log(service, DAEMON), 'napctl_other_manager_info{name="irqbalance",touches="interrupt affinity"} 1.0'
    service.run("systemctl start irqbalance.service")
    try:
        log.await_line("runs too: it sets interrupt affinity", LOOK_SECONDS)
        until(lambda: sample in managers(service))
        assert "set-by-two" not in service.try_to("napctl doctor e1000e0 --seconds 1").stdout, "napctl sets no affinity"
        pid = pid_of(service, "irqbalance.service")
        assert f"irqbalance ({pid}) runs too: it sets interrupt affinity as the load of the CPUs changes" in log.lines()
    finally:
        service.run("systemctl stop irqbalance.service")
    log.await_line("irqbalance has ended", LOOK_SECONDS)
    until(lambda: sample not in managers(service))
    assert sum("irqbalance" in each for each in log.lines()) == 2
    assert is_policy_true(service)


def test_a_link_file_that_sets_what_napctl_sets_is_found(service: Guest) -> None:
    path = "/etc/systemd/network/10-nic.link"
    service.run(f"printf '[Match]\\nDriver=e1000e\\n[Link]\\nRxCoalesceSec=20us\\n' >{path}")
    try:
        done = service.try_to("napctl doctor e1000e0 --seconds 1")
        assert done.status == 1
        assert "systemd-udevd may set coalescing of e1000e0, and so does napctl" in done.stdout
        assert path in done.stdout
    finally:
        service.run(f"rm {path}")


def test_a_cpu_that_goes_and_comes_again_changes_nothing(service: Guest) -> None:
    during, daemon, log = all_settings(service), pid_of(service), Log(service, DAEMON)
    with every_request_succeeds(service):
        for _ in range(2):
            service.run("echo 0 >/sys/devices/system/cpu/cpu1/online; sleep 12")
            assert is_attached(service)
            service.run("echo 1 >/sys/devices/system/cpu/cpu1/online; sleep 12")
            assert is_attached(service)
    assert all_settings(service) == during
    assert pid_of(service) == daemon
    assert in_force(service) == ["applied", "attached"]
    assert not [each for each in log.lines() if "Traceback" in each or "again in" in each]
    values = [float(each.split()[-1]) for each in service.run(METRICS).splitlines() if not each.startswith("#")]
    assert min(values) >= 0


def test_after_a_sleep_everything_is_looked_at_at_once(service: Guest) -> None:
    daemon, log = pid_of(service), Log(service, DAEMON)
    slept = "b=$(cut -d' ' -f1 /proc/uptime)"
    service.run(f"{slept}; {FREEZE}")
    log.await_line("the machine has slept for ")
    until(lambda: is_policy_true(service), log.lines)
    with every_request_succeeds(service):
        pass
    assert pid_of(service) == daemon
    assert not [each for each in log.lines() if "Traceback" in each or "left to him" in each]
