"""The guard watches the very process that posted it, also if that one dies before the guard is there."""

import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from napctl.change import guard

def die_first(me=os.getpid(), setsid=os.setsid):
    os.kill(me, signal.SIGKILL)
    while Path(f"/proc/{me}").exists():  # until it is reaped, and its pid is free
        time.sleep(0.001)
    setsid()

os.setsid = die_first
guard._watch = lambda _deadline, _directory: Path(sys.argv[1]).touch()
guard.post_guard(None, Path.cwd())
"""


def test_a_napctl_that_dies_while_its_guard_is_being_started_is_noticed_all_the_same(tmp_path: Path) -> None:
    noticed = tmp_path / "noticed"

    done = subprocess.run([sys.executable, "-c", SCRIPT, noticed], check=False, timeout=60)

    assert done.returncode == -9
    end = time.monotonic() + 60
    while not noticed.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
