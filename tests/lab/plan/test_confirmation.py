"""A plan that waits for a confirmation: it stays when that comes; else all comes back, whatever was killed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from napctl.kernel import processes
from napctl.lab.bed import Lab
from tests.lab.helpers import (
    PROGRAM,
    Napctl,
    at_server,
    machine_of,
    until,
)
from tests.lab.plans import (
    deferrals,
    frames_of,
    states,
    write_plan,
    write_what_the_kernel_refuses,
)

pytestmark = pytest.mark.lab


def test_without_a_confirmation_everything_comes_back(bed: Lab, napctl: Napctl, plan: Path) -> None:
    before = machine_of(bed.server)
    done = napctl("apply", plan, "--confirm-within", "1s", *at_server(bed))
    assert done.status == 0
    assert "napctl confirm 1" in done.stdout
    assert "rx-max-frames" in done.stdout
    until(lambda: machine_of(bed.server) == before, "the former settings")
    until(lambda: states(napctl) == ["restored"], "the record of it")
    assert napctl("confirm").failed_with(2, "transaction 1 was put back", "too late")


def test_confirmed_it_stays_and_the_guard_goes(bed: Lab, napctl: Napctl, plan: Path) -> None:
    assert napctl("apply", plan, "--confirm-within", "60s", *at_server(bed)).status == 0
    (waiting,) = napctl.live()
    assert waiting.guard is not None

    assert napctl("confirm").status == 0

    guard = waiting.guard
    until(lambda: processes.process(guard.pid) is None, "the end of the guard", patience_s=50)
    assert frames_of(bed.server.namespace) == 16
    assert states(napctl) == ["applied"]
    assert napctl("confirm", "1").failed_with(2, "needs no confirmation")
    assert napctl("rollback").status == 0


def test_the_former_settings_come_back_though_napctl_and_its_parent_were_killed(
    bed: Lab, napctl: Napctl, plan: Path
) -> None:
    before = machine_of(bed.server)
    session = subprocess.Popen(  # as an ssh session: a shell that runs napctl, with a session of its own
        ["sh", "-c", '"$@"; sleep 60', "sh", PROGRAM, "apply", plan, "--confirm-within", "3s", *at_server(bed)],
        env=napctl.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: deferrals(bed) == {(10, 50_000)}, "the new settings")
    finally:
        os.killpg(session.pid, signal.SIGKILL)
        session.wait()
    until(lambda: machine_of(bed.server) == before, "the former settings", patience_s=30)
    until(lambda: states(napctl) == ["restored"], "the record of it")


def test_recover_puts_back_what_nobody_confirmed_when_the_guard_was_killed_too(
    bed: Lab, napctl: Napctl, plan: Path
) -> None:
    before = machine_of(bed.server)
    assert napctl("apply", plan, "--confirm-within", "60s", *at_server(bed)).status == 0
    (waiting,) = napctl.live()
    assert waiting.guard is not None
    assert napctl("recover").stdout == "nothing to recover\n"
    os.kill(waiting.guard.pid, signal.SIGKILL)
    until(lambda: processes.process(waiting.guard.pid) is None if waiting.guard else True, "the end of the guard")

    recovered = napctl("recover")

    assert recovered.status == 0
    assert "nobody confirmed it, and its guard has ended" in recovered.stdout
    assert machine_of(bed.server) == before


def test_a_refused_plan_leaves_no_guard(
    bed: Lab, napctl: Napctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = write_what_the_kernel_refuses(tmp_path / "plan.toml", monkeypatch)
    assert napctl("apply", plan, "--force", "--confirm-within", "60s", *at_server(bed)).status == 6
    until(lambda: napctl.guards() == [], "the end of the guard", patience_s=50)


def test_a_confirmation_that_comes_too_late_is_refused_though_the_guard_has_not_come_either(
    bed: Lab, napctl: Napctl, plan: Path
) -> None:
    assert napctl("apply", plan, "--confirm-within", "2s", *at_server(bed)).status == 0
    (waiting,) = napctl.live()
    assert waiting.guard is not None
    os.kill(waiting.guard.pid, signal.SIGSTOP)
    try:
        time.sleep(2.1)
        assert napctl("confirm").failed_with(2, "too late")
    finally:
        os.kill(waiting.guard.pid, signal.SIGCONT)
    until(lambda: states(napctl) == ["restored"], "the end of the guard's work")


def test_nothing_else_is_begun_on_a_device_whose_plan_is_unconfirmed(
    bed: Lab, napctl: Napctl, plan: Path, tmp_path: Path
) -> None:
    """The guard needs the journal in time, and would leave alone what was set upon its plan."""
    assert napctl("apply", plan, "--confirm-within", "60s", *at_server(bed)).status == 0
    other = write_plan(tmp_path / "other.toml", frames=32)
    assert napctl("apply", other, *at_server(bed)).failed_with(2, "waits for a confirmation", "napctl confirm 1")
    assert napctl("verify", "tun0", *at_server(bed)).failed_with(2, "waits for a confirmation")
    assert napctl("rollback").status == 0
