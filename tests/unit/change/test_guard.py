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


PRINTING = """
import os, sys
from pathlib import Path
from napctl.change import guard
from napctl.cli.output_queue import never_waiting

def print_beside(_deadline, directory):
    \"\"\"Once each number that is free is a file of the guard's own, as the journal's are.\"\"\"
    for number in range(50):
        os.open(directory / str(number), os.O_CREAT | os.O_RDWR)
    print("a line")
    print("an error", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    (directory / "done").touch()

with never_waiting(lambda _lines: None):
    guard._watch = print_beside
    guard.post_guard(3600, Path.cwd())
"""


def test_what_a_guard_prints_never_comes_into_a_file_of_its_own(tmp_path: Path) -> None:
    """The numbers that its streams wrote to before it was forked are other files' afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", PRINTING], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    end = time.monotonic() + 60
    while not (tmp_path / "done").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == []
