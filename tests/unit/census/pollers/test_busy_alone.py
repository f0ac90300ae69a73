"""Promises about what keeps a CPU busy without a NIC: what it asks the kernel for is told, and nothing is guessed."""

import os

from hypothesis import given
from hypothesis import strategies as st

from napctl.census.pollers import busy_alone
from napctl.census.pollers.busy_alone import Calls, words
from napctl.census.pollers.suspects import Suspect
from napctl.kernel.processes import Process
from napctl.kernel.transfers import transfers

GONE = 2**22 + 1
SECONDS = st.floats(0, 1e6)
CALLS = st.builds(Calls, SECONDS, SECONDS, st.none() | st.integers(0, 2**63))


def of(user: float, kernel: float, moved: int | None) -> str:
    return words(Calls(10, 10, 0), Calls(10 + user, 10 + kernel, moved), 1.0)


def test_what_calls_nothing_what_reads_and_what_calls_otherwise_are_told_apart() -> None:
    assert of(1.0, 0.0, 0).endswith("it asks the kernel for nothing, and computes or spins on memory")
    assert of(0.4, 0.6, 250_000) == (
        "60.0 % of its CPU time is the kernel's, 250,000 reads and writes a second: "
        "it asks again and again, or moves data"
    )
    assert of(0.4, 0.6, None) == "60.0 % of its CPU time is the kernel's: it calls the kernel, and never waits there"


def test_nothing_is_told_of_a_moment_or_of_times_that_were_set_back() -> None:
    assert of(0.09, 0.0, 0) == ""
    assert of(-1.0, 2.0, 0) == ""


@given(before=CALLS, after=CALLS, seconds=st.floats(0, 1e6))
def test_whatever_is_read_is_a_line_or_nothing(before: Calls, after: Calls, seconds: float) -> None:
    told = words(before, after, seconds)
    assert "\n" not in told
    assert told == "" or after.user_seconds + after.kernel_seconds > before.user_seconds + before.kernel_seconds


def test_reads_and_writes_of_a_process_are_counted_and_one_that_has_gone_has_none() -> None:
    before = transfers(os.getpid())
    with open(os.devnull, "wb", buffering=0) as nowhere:  # noqa: PTH123
        for _ in range(100):
            nowhere.write(b"x")
    after = transfers(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before >= 100
    assert (transfers(GONE), busy_alone.calls(GONE)) == (None, None)


def test_one_that_may_look_for_copies_of_packets_says_so() -> None:
    suspect = Suspect(
        Process(GONE, "sniffer", 1), frozenset(), packet_sockets={7: 2}, device_names={2: "eth0"}, spins=True
    )
    found = busy_alone.detect(suspect)
    assert found is not None
    assert (found.bypass, "packet sockets on eth0" in found.evidence[-1]) == (False, True)
