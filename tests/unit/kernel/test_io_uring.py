"""What the fdinfo of an io_uring instance says."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.io_uring import RingFacts, facts, is_whole, joined, parsed, why_refused
from napctl.model.settings import RingPolling

HEAD = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1077\n"
"""All that is told while somebody works on it."""
RING = "SqMask:\t0xff\nSqHead:\t7\nSqTail:\t7\nCqMask:\t0x1ff\nSQEs:\t0\nCQEs:\t0\n"
FILES = """UserFiles:\t4
    0: socket:[81]
    2: socket:[82]
    3: pipe:[83]
UserBufs:\t1
    0: 0x7f0000/4096
PollList:
  op=10, task_works=0
CqOverflowList:
"""
DISABLED = "NAPI:\tdisabled\n"


def enabled(tracking: str | None = "dynamic", ns: int = 50_000, *, prefer: bool = True) -> str:
    told = f"napi tracking:\t{tracking}\n" if tracking else ""
    words = "true" if prefer else "false"
    return f"NAPI:\tenabled\n{told}napi_busy_poll_dt:\t{ns}\nnapi_prefer_busy_poll:\t{words}\n"


def ring(napi: str, *, sq_thread: int = -1, files: str = FILES) -> str:
    return f"{HEAD}{RING}SqThread:\t{sq_thread}\nSqThreadCpu:\t-1\n{files}{napi}"


@pytest.mark.parametrize(
    ("napi", "polling"),
    [
        (DISABLED, RingPolling(tracking="inactive", busy_poll_usecs=0, prefer_busy_poll=False)),
        (enabled(), RingPolling(tracking="dynamic", busy_poll_usecs=50, prefer_busy_poll=True)),
        (enabled("static", 0, prefer=False), RingPolling(tracking="static", busy_poll_usecs=0, prefer_busy_poll=False)),
        (enabled(None, 7_000), RingPolling(tracking="dynamic", busy_poll_usecs=7, prefer_busy_poll=True)),
        (
            "NAPI:\tunknown mode (7)\n",
            RingPolling(tracking="unknown mode (7)", busy_poll_usecs=0, prefer_busy_poll=False),
        ),
        ("", None),
    ],
)
def test_what_a_ring_polls_is_read_or_not_told(napi: str, polling: RingPolling | None) -> None:
    assert parsed(ring(napi)) == RingFacts(polling, submission_thread=False, sockets=frozenset({81, 82}))


def test_a_submission_thread_is_seen_and_files_that_are_no_sockets_are_none() -> None:
    found = parsed(ring(DISABLED, sq_thread=412, files="UserFiles:\t0\n"))

    assert found is not None
    assert (found.submission_thread, found.sockets) == (True, frozenset())


def test_a_ring_on_which_somebody_works_tells_nothing() -> None:
    assert parsed(HEAD) is None


POLLINGS = st.none() | st.builds(
    RingPolling, tracking=st.just("dynamic"), busy_poll_usecs=st.integers(0, 1), prefer_busy_poll=st.booleans()
)
READINGS = st.builds(
    RingFacts, polling=POLLINGS, submission_thread=st.booleans(), sockets=st.frozensets(st.integers(1, 5))
)


@given(st.lists(READINGS, max_size=5))
def test_readings_without_the_lock_are_believed_where_two_in_a_row_agree_and_leave_nothing_out(
    readings: list[RingFacts],
) -> None:
    found = joined(readings)
    if len(readings) < 2 or readings[-1].polling != readings[-2].polling:
        assert found is None
        return
    assert found is not None
    assert found.polling == readings[-1].polling
    assert found.submission_thread == any(each.submission_thread for each in readings)
    assert all(each.sockets <= found.sockets for each in readings)


def test_a_reading_that_was_written_while_somebody_worked_on_the_ring_hides_no_thread() -> None:
    """As Linux 6.13 writes it then: no thread, and no files."""
    unlocked, whole = ring(enabled(), files="UserFiles:\t4\n"), ring(enabled(), sq_thread=412)
    for texts in ((unlocked, whole), (whole, unlocked)):
        found = joined([each for each in map(parsed, texts) if each is not None])
        assert found is not None
        assert (found.submission_thread, found.sockets) == (True, frozenset({81, 82}))


POLLS = "UserFiles:\t0\nUserBufs:\t0\nPollList:\n  op=22, task_works=0\nCqOverflowList:\n"
NOTHING = "UserFiles:\t4\nUserBufs:\t1\nPollList:\nCqOverflowList:\n  user_data=1, res=0, flags=0\n"
"""Where somebody has the lock; an overflow is told all the same."""


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (ring(DISABLED), True),
        (ring(DISABLED, files=POLLS), True),
        (ring(DISABLED, files="UserFiles:\t4\nUserBufs:\t1\n    0: <none>\nPollList:\n"), True),
        (ring(DISABLED, sq_thread=412, files=NOTHING), True),
        (ring(DISABLED, files=NOTHING), False),
        (ring(enabled(), files=NOTHING).replace("CQEs:\t0\n", "CQEs:\t1\n    7: user_data:1, res:0, flag:0\n"), False),
        (ring(DISABLED, files="UserFiles:\t0\n"), False),
        (HEAD, False),
    ],
)
def test_a_reading_is_whole_if_it_has_what_is_written_under_the_lock_alone(text: str, whole: bool) -> None:
    assert is_whole(text) is whole


def test_one_reading_does_where_it_is_whole_and_two_where_the_first_may_have_left_something_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: texts.pop(0))
    thread = RingFacts(parsed(ring(DISABLED)).polling, True, frozenset({81, 82}))  # type: ignore[union-attr]
    texts[:] = [ring(DISABLED, sq_thread=412), ring(DISABLED)]
    assert (facts(3), len(texts)) == (thread, 1)
    texts[:] = [ring(DISABLED, files=NOTHING), ring(DISABLED, sq_thread=412), ring(DISABLED)]
    assert (facts(3), len(texts)) == (thread, 1)
    texts[:] = [ring(DISABLED, files=NOTHING), ring(DISABLED, files=NOTHING), ring(DISABLED)]
    assert (facts(3).sockets, len(texts)) == (frozenset(), 1)


def test_each_refusal_is_told_with_what_the_program_asked_for() -> None:
    assert "SINGLE_ISSUER" in why_refused(errno.EEXIST)
    assert "RESTRICTIONS" in why_refused(errno.EACCES)
    assert why_refused(errno.ENOMEM) == "Cannot allocate memory"
