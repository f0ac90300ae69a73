"""A CPU that a program keeps from all others, and a thread that may have no other one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HOLDS_ITS_CPU = """
import sys, time
print(flush=True)
sys.stdin.readline()
end = time.monotonic() + 0.6
print(flush=True)
while time.monotonic() < end:
    pass
"""


@contextmanager
def about_to_hold(cpu: int) -> Iterator["subprocess.Popen[str]"]:
    """A program that keeps that CPU from all ordinary ones for a while from when it is told to."""
    command = ["chrt", "--fifo", "1", "taskset", "--cpu-list", str(cpu), sys.executable, "-c", HOLDS_ITS_CPU]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline()  # it has started
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def held_to(cpu: int) -> Iterator[None]:
    """This thread, to one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
