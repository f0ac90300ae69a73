"""What a process that runs for months keeps of what it needed once."""

import subprocess
import sys

CODE = """
import threading
from pathlib import Path
from napctl.kernel.own_memory import give_back_what_is_free

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def use():
    for _ in range(2):
        bytearray(b"x" * (8 << 20))

give_back_what_is_free()
before = resident()
use()
other = threading.Thread(target=use)
other.start()
other.join()
print(resident() - before)
"""


def test_large_blocks_are_given_back_also_by_threads() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 2e6
