"""The disk is kept over a reboot, which napctl's journal knows from a restart."""

from pathlib import Path

import pytest

from tests.debian.conftest import BUSY
from tests.debian.guest import Guest

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def test_what_is_on_the_disk_is_there_after_a_reboot_and_an_attachment_is_over(disk: Path, package: Path) -> None:
    with Guest(disk) as guest:
        guest.run(f"dpkg --install /host{package}")
        guest.run(BUSY)
        guest.run("napctl attach nginx.service --window 0s")
        first = guest.run("cat /proc/sys/kernel/random/boot_id")
    with Guest(disk) as guest:
        assert guest.run("cat /proc/sys/kernel/random/boot_id") != first
        assert guest.run("systemctl is-system-running --wait || true").strip() in ("running", "degraded")
        assert "set before the last reboot" in guest.run("napctl recover")
