"""Of the CPUs that somebody has chosen for this process it leaves none: real affinity, in processes of their own."""

import os
import subprocess
import sys

CHOSEN = """
import os
from napctl.kernel.own_cpu import allowed_cpus, away_from, chosen_cpus
os.sched_setaffinity(0, allowed_cpus())
print(chosen_cpus())
first = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {first})
chosen = chosen_cpus()
print(chosen == {first}, away_from({first}, chosen), os.sched_getaffinity(0) == {first})
print(away_from({first + 1}, chosen) == {first}, os.sched_getaffinity(0) == {first})
"""


def test_it_stays_within_what_was_chosen_for_it() -> None:
    others = len(os.sched_getaffinity(0)) > 1
    ran = subprocess.run([sys.executable, "-c", CHOSEN], check=True, capture_output=True, text=True).stdout
    assert ran.splitlines()[0] == "None"
    if others:
        assert ran.splitlines()[1:] == ["True frozenset() True", "True True"]
