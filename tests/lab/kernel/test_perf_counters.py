"""Counters of real threads. What the kernel counts itself (PERF_TYPE_SOFTWARE) stands for what a CPU counts: the same
system call, the same answer."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.census.pollers.thread_counters import DID_NOT_RUN, ThreadCounters
from napctl.census.pollers.work_estimate import Counts
from napctl.kernel.perf_counters import HARDWARE, CounterGroup, PerfEvent, counted
from napctl.kernel.processes import look
from napctl.kernel.schedstat import turns
from tests.lab.helpers import free_pid, open_files, until

pytestmark = pytest.mark.lab

TASK_CLOCK, PAGE_FAULTS, SWITCHES, MIGRATIONS = (PerfEvent(1, number) for number in (1, 2, 3, 4))
SOFTWARE = (TASK_CLOCK, PAGE_FAULTS, SWITCHES, MIGRATIONS)
NO_SUCH = (PerfEvent(0, 9_999), *SOFTWARE[1:])
"""As where the CPU has no counters: no PMU knows it (ENOENT)."""
ENOUGH_NS = 50_000_000


@contextmanager
def spinner() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as spinning:
        try:
            until(lambda: ran_ns(spinning.pid) > ENOUGH_NS, "it to spin")
            yield spinning
        finally:
            spinning.kill()


def ran_ns(tid: int) -> int:
    found = turns(tid)
    return 0 if found is None else found.ran_ns


def test_of_a_foreign_thread_that_spins_its_time_is_counted() -> None:
    with spinner() as spinning:
        before = ran_ns(spinning.pid)
        group = CounterGroup(spinning.pid, SOFTWARE)
        then = group.read()
        assert then is not None
        began = ran_ns(spinning.pid)
        until(lambda: ran_ns(spinning.pid) > began + ENOUGH_NS, "it to run")
        ended = ran_ns(spinning.pid)
        now = group.read()
        after = ran_ns(spinning.pid)
        group.close()
        assert now is not None
        assert then.running_ns <= then.enabled_ns <= now.enabled_ns
        found = counted(then, now)
        assert found is not None
        task_clock, faults, _, _ = found
        late = 20_000_000  # what of its time stands in /proc is that of its last tick
        assert ended - began - late <= task_clock <= after - before + late
        assert faults == 0
        assert now.counts[0] == pytest.approx(now.running_ns, rel=0.2)


def test_the_census_counts_them_by_the_same_call() -> None:
    counters = ThreadCounters(SOFTWARE)
    with spinner() as spinning:
        counters.begin([spinning.pid])
        began = ran_ns(spinning.pid)
        until(lambda: ran_ns(spinning.pid) > began + ENOUGH_NS, "it to run")
        counts = counters.end()[spinning.pid]
    assert isinstance(counts, Counts)
    assert counts.cycles > ENOUGH_NS / 2
    assert counts.instructions == 0  # page faults


def test_of_a_thread_that_slept_all_the_time_it_is_said_that_it_did_not_run() -> None:
    counters = ThreadCounters(SOFTWARE)
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        try:
            until(lambda: (seen := look(sleeping.pid)) is not None and seen.state == "S", "it to sleep")
            counters.begin([sleeping.pid])
            assert counters.end() == {sleeping.pid: DID_NOT_RUN}
        finally:
            sleeping.kill()


def test_whoever_begins_anew_counts_those_threads_alone_and_holds_no_more_descriptors() -> None:
    before, counters = open_now(), ThreadCounters(SOFTWARE)
    with spinner() as spinning:
        counters.begin([spinning.pid, free_pid()])
        counters.begin([os.getpid()])
        assert open_now() == before + len(SOFTWARE)
        assert counters.end().keys() == {os.getpid()}
    assert open_now() == before


def open_now() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_of_a_thread_that_has_ended_the_last_is_read_and_none_is_begun() -> None:
    counters = ThreadCounters(SOFTWARE)
    with spinner() as spinning:
        group = CounterGroup(spinning.pid, SOFTWARE)
        then = group.read()
        spinning.kill()
        spinning.wait()
        last = group.read()
        assert then is not None
        assert last is not None
        assert last.counts[0] >= then.counts[0]
        assert group.read() == last
        group.close()
    with pytest.raises(ProcessLookupError):
        CounterGroup(spinning.pid, SOFTWARE)
    counters.begin([free_pid(), os.getpid()])
    found = counters.end()
    assert "it ended meanwhile" in found.values()
    assert isinstance(found[os.getpid()], Counts)  # one that has ended says nothing of the next


def test_a_group_that_cannot_be_had_as_a_whole_leaves_no_descriptor() -> None:
    before = open_files(os.getpid())
    with pytest.raises(FileNotFoundError):
        CounterGroup(os.getpid(), (TASK_CLOCK, *NO_SUCH))
    assert open_files(os.getpid()) == before


def test_where_the_cpu_has_no_such_counters_one_call_finds_out() -> None:
    counters = ThreadCounters(NO_SUCH)
    counters.begin([os.getpid(), free_pid()])  # the second would be refused with another reason
    assert set(counters.end().values()) == {"this machine has no such counters"}


def test_the_counters_of_this_cpu_are_had_or_their_lack_is_named() -> None:
    """On real machines the first, on most virtual ones the second."""
    counters = ThreadCounters()
    counters.begin([os.getpid()])
    sum(range(10**6))
    found = counters.end()[os.getpid()]
    if isinstance(found, str):
        assert found == "this machine has no such counters"
        with pytest.raises(OSError, match=r".") as refused:
            CounterGroup(os.getpid(), HARDWARE)
        assert refused.value.errno in (errno.ENOENT, errno.EOPNOTSUPP)
    else:
        assert found.instructions > found.branches > found.branch_misses


RIGHTS = """
import os, sys
from napctl.census.pollers.thread_counters import ThreadCounters
from napctl.kernel.perf_counters import PerfEvent
os.setgroups([]); os.setgid(65534); os.setuid(65534)
counters = ThreadCounters(tuple(PerfEvent(1, number) for number in (1, 2, 3, 4)))
counters.begin([int(sys.argv[1])])
print(*counters.end().values())
"""


def test_without_rights_over_the_thread_the_capability_is_named() -> None:
    with spinner() as spinning:
        said = subprocess.run(
            [sys.executable, "-c", RIGHTS, str(spinning.pid)], check=True, capture_output=True, text=True
        ).stdout
    assert said.startswith("not permitted: it needs CAP_PERFMON")
    assert "perf_event_paranoid" in said


FILES = """
import os, resource
from napctl.census.pollers.thread_counters import ThreadCounters
from napctl.kernel.perf_counters import PerfEvent
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5,) * 2)
for tids in ([os.getpid(), 1, os.getppid()], [os.getpid()]):
    counters = ThreadCounters(tuple(PerfEvent(1, number) for number in (1, 2, 3, 4)))
    counters.begin(tids)
    for each in counters.end().values():
        print(each if isinstance(each, str) else "counted")
"""


def test_where_too_many_files_are_open_that_is_named_and_the_others_are_counted() -> None:
    ran = subprocess.run([sys.executable, "-c", FILES], check=True, capture_output=True, text=True)
    assert sorted(ran.stdout.splitlines()) == ["counted"] * 2 + ["too many files are open here"] * 2
