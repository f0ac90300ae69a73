"""A process that tries to load a probe, and what it says of that."""

import os
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parents[3] / "src"
LOAD = """
from napctl.probe import Probe, ProbeUnavailable
from napctl.probe.suspension import SuspensionProbe
try: {}.load().close()
except ProbeUnavailable as e: print(e.reason)
"""


def load_in(probe: str, *wrapper: str) -> str:
    """What a process says that tries to load the probe of that class within `wrapper`."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", LOAD.format(probe)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""  # neither a warning nor libbpf's own messages
    return done.stdout.strip()
