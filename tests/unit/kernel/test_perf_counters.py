"""Promises about counters of a thread: of what the kernel answers, made as perf_event_open(2) documents it.

No machine that this was made on has counters of the CPU; what counts the kernel's own events is in tests/lab/kernel.
"""

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.perf_counters import HARDWARE, GroupReading, counted, group_reading, why_refused

WORD = st.integers(0, 2**64 - 1)
COUNTS = st.lists(st.integers(0, 2**62), min_size=1, max_size=4)


def answer(*counts: int, enabled: int, running: int) -> bytes:
    """PERF_FORMAT_GROUP with both times: u64 nr, time_enabled, time_running, then one value each."""
    return struct.pack(f"={3 + len(counts)}Q", len(counts), enabled, running, *counts)


def test_a_group_is_read_as_documented() -> None:
    """Cycles, instructions, branches, branch misses of a second at 3 GHz."""
    data = answer(3_000_000_000, 8_400_000_000, 2_100_000_000, 12_345, enabled=10**9, running=10**9)
    assert len(data) == 8 * (3 + len(HARDWARE))
    found = group_reading(data)
    assert found == GroupReading(10**9, 10**9, (3_000_000_000, 8_400_000_000, 2_100_000_000, 12_345))


@pytest.mark.parametrize("size", [0, 8, 23, 31, 40, 55])
def test_an_answer_of_another_form_is_none(size: int) -> None:
    """Nothing at all: the event is in its error state."""
    assert group_reading(answer(1, 2, 3, 4, enabled=5, running=5)[:size]) is None


@given(data=st.binary(max_size=80))
def test_whatever_is_read_breaks_nothing(data: bytes) -> None:
    group_reading(data)


def test_where_others_count_as_well_a_part_of_the_time_stands_for_all_of_it() -> None:
    then, now = GroupReading(100, 50, (1000, 10)), GroupReading(1100, 300, (2000, 30))
    assert counted(then, now) == (4000.0, 80.0)


@given(start=WORD, at=WORD, grown=COUNTS, running=st.integers(1, 2**40), more=st.integers(0, 2**40))
def test_what_was_counted_is_never_less_than_what_was_seen_also_over_a_wrap(
    start: int, at: int, grown: list[int], running: int, more: int
) -> None:
    then = GroupReading(at, start, tuple(start for _ in grown))
    now = GroupReading(
        (at + running + more) % 2**64, (start + running) % 2**64, tuple((start + each) % 2**64 for each in grown)
    )
    found = counted(then, now)
    assert found is not None
    for told, seen in zip(found, grown, strict=True):
        assert told == pytest.approx(seen * (running + more) / running)
        assert told >= seen * (1 - 1e-9)


def test_a_window_in_which_the_group_never_had_the_counters_tells_nothing() -> None:
    """Pinned counters of others; the CPUs of another kind, on machines with two."""
    assert counted(GroupReading(100, 0, (0, 0)), GroupReading(1100, 0, (0, 0))) is None
    assert counted(GroupReading(100, 100, (5, 5)), GroupReading(100, 100, (5, 5))) is None


def test_what_went_back_or_is_of_another_group_tells_nothing() -> None:
    assert counted(GroupReading(100, 100, (5, 5)), GroupReading(200, 200, (6, 4))) is None
    assert counted(GroupReading(200, 200, (5, 5)), GroupReading(100, 100, (6, 6))) is None
    assert counted(GroupReading(100, 100, (5,)), GroupReading(200, 200, (6, 6))) is None


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "no such counters"),
        (errno.EOPNOTSUPP, "no such counters"),
        (errno.EACCES, "CAP_PERFMON, or for a process of one's own kernel.perf_event_paranoid"),
        (errno.EPERM, "CAP_PERFMON"),
        (errno.ESRCH, "ended"),
        (errno.EMFILE, "too many files"),
        (errno.E2BIG, "perf_event_open: Argument list too long"),
    ],
)
def test_each_refusal_is_named(number: int, words: str) -> None:
    assert words in why_refused(OSError(number, os.strerror(number)))
