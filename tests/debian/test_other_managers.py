"""Another manager on the same machine, as Debian has it."""

from collections.abc import Iterator

import pytest

from tests.debian.guest import Guest
from tests.debian.service import (
    DAEMON,
    UNITS,
    Log,
    is_policy_true,
    pid_of,
    until,
    write_policy,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

METRICS = "curl --silent http://127.0.0.1:9811/metrics"
LOOK_SECONDS = 180
"""Units are looked for every 10 s, emulated or not; all processes as seldom as that takes 0.05 % of a CPU."""


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
