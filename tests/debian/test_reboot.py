"""The disk is kept over a reboot: the service makes the policy true again, whatever the end of the boot before was."""

from contextlib import suppress
from pathlib import Path

import pytest

from tests.debian.conftest import BUSY, ONE_WORKER
from tests.debian.guest import Guest
from tests.debian.service import DAEMON, Log, is_active, is_attached, is_policy_true, until, write_policy

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


class PowerCut(Exception):
    """Ends a guest at once."""


def test_after_a_reboot_and_after_a_power_cut_nginx_is_attached_again(disk: Path, package: Path) -> None:
    boots = set()
    with Guest(disk) as guest:
        guest.run(f"{ONE_WORKER}\ndpkg --install /host{package}")
        write_policy(guest)
        guest.run(f"systemctl enable --now {DAEMON}")
        boots.add(attached_in_boot(guest))
    with suppress(PowerCut), Guest(disk) as guest:
        boots.add(attached_in_boot(guest))
        raise PowerCut
    with Guest(disk) as guest:
        boots.add(attached_in_boot(guest))
    assert len(boots) == 3


def attached_in_boot(guest: Guest) -> str:
    """As soon as nginx has traffic; which boot it is."""
    assert is_active(guest, DAEMON) == "active"
    assert not is_attached(guest)
    guest.run(BUSY)
    until(lambda: is_policy_true(guest), Log(guest, DAEMON).lines)
    return guest.run("cat /proc/sys/kernel/random/boot_id")
