"""Whether a thread sleeps: of real ones."""

import os
import subprocess

import pytest

from napctl.kernel.sleeps import sleeps
from tests.lab.helpers import free_pid, until

pytestmark = pytest.mark.lab


def test_one_that_waits_sleeps_and_one_that_spins_does_not() -> None:
    with (
        subprocess.Popen(["sleep", "60"]) as waiting,
        subprocess.Popen(["sh", "-c", "while :; do :; done"]) as spinning,
    ):
        try:
            until(lambda: (found := sleeps(waiting.pid)) is not None and found.now, "it to sleep")
            busy = until(lambda: (found := sleeps(spinning.pid)) is not None and not found.now and found, "it to spin")
            assert sleeps(spinning.pid) == busy
        finally:
            waiting.kill()
            spinning.kill()


def test_each_sleep_is_counted() -> None:
    before = sleeps(os.getpid())
    os.read(os.eventfd(1), 8)
    subprocess.run(["true"], check=True)
    after = sleeps(os.getpid())
    assert before is not None
    assert after is not None
    assert after.times > before.times


def test_of_one_that_is_gone_nothing_is_told() -> None:
    assert sleeps(free_pid()) is None
