"""The machine sleeps with its devices, its CPUs and its clocks, and wakes: the service goes on, and says so."""

from pathlib import Path

import pytest

from tests.debian.conftest import BUSY, ONE_WORKER
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
    is_policy_true,
    pid_of,
    until,
    write_policy,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

WITHOUT_HOST = """
umount /host
cd /sys/bus/virtio/drivers/9pnet_virtio
for each in virtio*; do echo "$each" >unbind; done
"""
"""The driver of the host's files knows nothing of sleep."""
SLEEP = """
echo 20 >/sys/module/suspend/parameters/pm_test_delay
echo core >/sys/power/pm_test
echo mem >/sys/power/state
"""
"""All of a suspend to RAM but the last step, in which the firmware takes over: QEMU's does not come back from
that. Devices are suspended, other CPUs are off, the clocks stand still for so long
(Documentation/power/basic-pm-debugging.rst)."""


def test_after_a_sleep_of_the_machine_the_policy_is_true_again(disk: Path, package: Path) -> None:
    with Guest(disk) as guest:
        guest.run(f"{ONE_WORKER}\ndpkg --install /host{package}")
        guest.run(BUSY)
        before = all_settings(guest)
        write_policy(guest)
        guest.run(f"systemctl start {DAEMON}")
        until(lambda: is_policy_true(guest), Log(guest, DAEMON).lines)
        daemon, log = pid_of(guest), Log(guest, *UNITS)
        guest.run(WITHOUT_HOST)

        guest.run(SLEEP)

        log.await_line("the machine has slept for")
        until(lambda: is_policy_true(guest), log.lines)
        with every_request_succeeds(guest):
            pass
        assert pid_of(guest) == daemon
        assert is_active(guest, GUARD) == "active"
        assert in_force(guest) == ["applied", "attached"]
        assert not any("somebody else" in each for each in log.lines()), log.lines()
        guest.run(f"systemctl stop {' '.join(UNITS)}")
        assert all_settings(guest) == before
