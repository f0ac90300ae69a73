"""Another hand, and another napctl, while `verify` works: nobody waits for it, and nobody's value is overwritten."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from tests.lab.helpers import Napctl, at_server, machine_of, until
from tests.lab.plans import states
from tests.lab.tap import Tap, written_to
from tests.lab.verify.test_verify import plan as tap_plan
from tests.tries import in_one_of

pytestmark = pytest.mark.lab


@pytest.fixture
def tap() -> Iterator[Tap]:
    with written_to() as tap:
        tap.frames = 16
        yield tap


@contextmanager
def verifying(napctl: Napctl, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A verification that takes long, in the midst of it."""
    running = napctl.start("verify", *arguments, "--seconds", 1.5, "--pairs", 50)
    try:
        until(lambda: any(each.kind == "verify" for each in napctl.live()), "a trial")
        yield running
    finally:
        running.kill()
        running.communicate()


def test_a_plan_can_be_rolled_back_while_it_is_verified_and_that_ends_it(
    tap: Tap, napctl: Napctl, tmp_path: Path
) -> None:
    file = tap_plan(tmp_path / "plan", rx_max_frames=32)
    assert napctl("apply", file, *tap.here).status == 0
    with verifying(napctl, "tap0", *tap.here) as running:
        assert "on trial" in napctl("history").stdout
        assert napctl("recover").stdout == "nothing to recover\n"
        start = time.monotonic()
        assert napctl("rollback").status == 0
        assert time.monotonic() - start < 30, "it did not wait for the end, which takes 150 s"
        assert tap.frames == 16
        output, words = running.communicate(timeout=60)

    assert (running.returncode, output) == (5, "")
    assert words.splitlines()[-1].startswith("napctl: verify 2 on tap0: somebody else has put it back")
    assert tap.frames == 16
    assert states(napctl) == ["restored", "restored"]


def test_nobody_waits_for_a_verification(tap: Tap, bed: Lab, plan: Path, napctl: Napctl) -> None:
    before = machine_of(bed.server)
    assert napctl("apply", plan, "--confirm-within", "60s", *at_server(bed)).status == 0
    with verifying(napctl, "tap0", *tap.here) as running:
        start = time.monotonic()
        assert napctl("confirm").status == 0
        assert napctl("rollback").status == 0
        assert napctl("detach", "--all").stdout == "nothing was attached\n"
        assert time.monotonic() - start < 30
        assert running.poll() is None, "it goes on, as none of it is its own"
    assert machine_of(bed.server) == before


def test_nothing_is_begun_upon_what_is_only_tried(tap: Tap, napctl: Napctl, tmp_path: Path) -> None:
    file = tap_plan(tmp_path / "plan", rx_max_frames=32)
    with verifying(napctl, "tap0", *tap.here) as running:
        for command in (("apply", file), ("verify", "tap0")):
            assert napctl(*command, *tap.here).failed_with(2, "verify 1 on tap0 is on trial", f"pid {running.pid}")
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    assert tap.frames == 16


def test_a_verification_that_is_killed_is_put_back_by_its_guard(tap: Tap, napctl: Napctl) -> None:
    with verifying(napctl, "tap0", *tap.here) as running:
        until(lambda: tap.frames == 1, "the other value")
        running.kill()
        running.wait()
        until(lambda: napctl.live() == [], "the guard to restore")
    assert tap.frames == 16


def test_what_somebody_sets_during_a_verification_ends_it_and_stays(tap: Tap, napctl: Napctl) -> None:
    """But for what comes between a write and reading it back: nobody can tell that from a driver that rounds."""

    def attempt() -> None:
        tap.frames = 16
        with verifying(napctl, "tap0", *tap.here) as running:
            tap.frames = 7
            _, words = running.communicate(timeout=60)

        assert running.returncode == 5
        assert "rx-max-frames" in words.splitlines()[-1]
        assert "somebody else has changed it" in words.splitlines()[-1]
        assert tap.frames == 7
        assert napctl.live() == []

    in_one_of(attempt)
