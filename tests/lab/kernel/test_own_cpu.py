"""Where this process runs, and before whom: real scheduling, in processes of their own."""

import os
import signal
import subprocess
import sys

import pytest

from tests.tries import in_one_of

pytestmark = [pytest.mark.lab, pytest.mark.alone]

BEFORE_OTHERS = """
import os, time
from napctl.kernel.own_cpu import BeforeOthers
def first():
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
with BeforeOthers() as before:
    print(before.allowed, first())
    for _ in range(2):
        end = time.monotonic() + 10
        while first() and time.monotonic() < end:
            pass
        print(time.monotonic() < end - 8, before.is_ordinary, before.again(), first())
        time.sleep(0.05)
        print(first(), before.is_ordinary)
print(os.sched_getscheduler(0) == os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))
"""
NEVER_HEARD = """
import signal, time
from napctl.kernel.own_cpu import BeforeOthers
with BeforeOthers():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGXCPU})
    end = time.monotonic() + 10
    while time.monotonic() < end:
        pass
print("not killed")
"""
AWAY = """
import os
from napctl.kernel.own_cpu import allowed_cpus, away_from
os.sched_setaffinity(0, {1})
print(sorted(allowed_cpus()), sorted(os.sched_getaffinity(0)))
print(sorted(away_from({1})), sorted(os.sched_getaffinity(0)))
print(sorted(away_from(range(64))), sorted(os.sched_getaffinity(0)))
"""


def lines_of(program: str) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.splitlines()


def test_before_others_it_never_runs_long_without_a_sleep_and_is_so_again_when_asked() -> None:
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    rounds = ["True True True True", "True False"] * 2
    assert lines_of(BEFORE_OTHERS) == ["True True", *rounds, f"True {nice}"]


def test_what_does_not_even_hear_of_that_is_killed() -> None:
    ran = subprocess.run([sys.executable, "-c", NEVER_HEARD], check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, "")


def test_it_moves_away_from_busy_cpus_wherever_it_was_started_and_stays_where_all_are() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    others = [each for each in cpus if each != 1]
    assert lines_of(AWAY) == [f"{cpus} [1]", f"{others} {others}", f"[] {others}"]


PROMPT = """
import time
from napctl.kernel.own_cpu import BeforeOthers
late = []
with BeforeOthers() as before:
    for _ in range(100):
        due = time.monotonic() + 0.005
        time.sleep(0.005)
        late.append(time.monotonic() - due)
print(before.allowed, max(late) < 0.02)
"""
ONE_CPU = ("taskset", "-c", "1")


def test_before_others_it_runs_at_once_on_a_cpu_that_another_process_has_at_the_best_nice_value() -> None:
    with subprocess.Popen(["nice", "-n", "-20", *ONE_CPU, "sh", "-c", "while :; do :; done"]) as spinning:
        try:
            in_one_of(prompt)  # a virtual machine's CPU may be taken from all that runs on it
        finally:
            spinning.kill()


def prompt() -> None:
    ran = subprocess.run([*ONE_CPU, sys.executable, "-c", PROMPT], check=True, capture_output=True, text=True)
    assert ran.stdout == "True True\n"
