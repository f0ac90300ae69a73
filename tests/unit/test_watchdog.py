"""A test that hangs is ended by its limit, whatever it hangs in, and what a killed pytest started ends with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.watchdog import marked_by

ROOT = Path(__file__).parents[2]
PREFIX = """
import ctypes, os, subprocess, sys, time
from tests.watchdog import MARK, Watchdog
watchdog = Watchdog(grace_seconds={grace_seconds})
print(os.environ[MARK], flush=True)
watchdog.begin("tests/test_that.py::test_hangs", 0.3)
"""


def start(program: str, grace_seconds: float = 0.3) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PREFIX.format(grace_seconds=grace_seconds) + program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_wait_for_a_child_that_does_not_end_comes_to_an_end() -> None:
    running = start(
        """
subprocess.Popen(["sh", "-c", "sleep 1000; true"], start_new_session=True).wait()
watchdog.end()
time.sleep(1)
print("went on")
""",
        grace_seconds=2,
    )
    output, errors = running.communicate(timeout=60)

    assert (running.returncode, output.splitlines()[1:]) == (0, ["went on"])
    assert errors.count("tests/test_that.py::test_hangs goes on beyond its limit: ending what it started") == 1


def test_what_hangs_in_c_is_told_and_ended() -> None:
    running = start("""
import faulthandler
faulthandler.enable()
ctypes.PyDLL(None).pause()  # nobody else has the interpreter, so no handler of a signal runs
""")
    began = time.monotonic()
    _, errors = running.communicate(timeout=60)

    assert running.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in errors, "it tells where it is"
    assert time.monotonic() - began < 50


def mark_of(running: subprocess.Popen[str]) -> str:
    """Once its script has said that it has started."""
    assert running.stdout
    mark, started = (running.stdout.readline().strip() for _ in range(2))
    assert started == "started"
    return mark


def test_what_does_not_heed_an_abort_is_killed() -> None:
    running = start("""
import signal
signal.signal(signal.SIGABRT, signal.SIG_IGN)
time.sleep(1000)
""")
    running.communicate(timeout=60)

    assert running.returncode == -signal.SIGKILL


def test_what_a_killed_pytest_started_ends_with_it() -> None:
    running = start(
        """
subprocess.Popen(["setsid", "sh", "-c", "sleep 1000; true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
watchdog.end()
print("started", flush=True)
time.sleep(1000)
""",
        grace_seconds=20,
    )
    mark = mark_of(running)
    deadline = time.monotonic() + 20
    while len(marked_by(mark)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(marked_by(mark)) == 2, "the shell and its child"
    running.kill()
    running.communicate(timeout=60)  # to the end of its standard error, which the watchdog holds, too

    assert marked_by(mark) == []


def test_what_a_killed_pytest_had_forked_ends_with_it_too() -> None:
    running = start(
        """
from tests.forked import forked
forked(lambda: time.sleep(1000), ["sleep"], ["sleep"], dict(os.environ))
watchdog.end()
print("started", flush=True)
time.sleep(1000)
""",
        grace_seconds=20,
    )
    mark = mark_of(running)
    assert len(marked_by(mark)) == 1
    running.kill()
    running.communicate(timeout=60)

    assert marked_by(mark) == []


def test_what_a_test_starts_can_be_interrupted_although_pytest_was_started_in_the_background(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text("""
import signal, subprocess
def test_it():
    for number in (signal.SIGINT, signal.SIGHUP):
        child = subprocess.Popen(["sleep", "1000"])
        child.send_signal(number)
        assert child.wait(50) == -number
""")
    environment = {name: value for name, value in os.environ.items() if name != "TERM"}
    done = subprocess.run(
        ["env", "--ignore-signal=INT,HUP", sys.executable, "-m", "pytest", "-q", "-o", "timeout=60", str(tmp_path)],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout
