"""Whether a thread sleeps: of real ones."""

import os
import subprocess
import time

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
            until(lambda: spins(spinning.pid), "it to spin")  # while it is started it may wait for a file
        finally:
            waiting.kill()
            spinning.kill()


def spins(pid: int) -> bool:
    """Whether it has not slept between two looks."""
    before = sleeps(pid)
    time.sleep(0.01)
    return before == sleeps(pid) and before is not None and not before.now


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
