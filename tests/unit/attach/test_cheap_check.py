"""The cheap check of --stay: who has been begotten since, of this very process, whether all are listed or not."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from napctl.attach import follow_check
from napctl.attach.follow_check import Pulse
from napctl.kernel import processes
from tests.lab.helpers import until


@pytest.fixture
def pulse() -> Pulse:
    own = processes.process(os.getpid())
    assert own is not None
    found = Pulse([own])
    found.take()
    return found


@contextmanager
def child() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_child_is_seen_at_the_next_check_and_once(pulse: Pulse) -> None:
    with child() as pid:
        assert pid in pulse.take().born
        assert not pulse.take().born
        with child() as other:
            assert other in pulse.take().born
    assert pulse.take().ended == {pid, other}


def test_the_newest_pid_is_that_of_who_came_last_or_of_who_came_since() -> None:
    for _ in range(10):
        with child() as pid:
            if processes.newest_pid() == pid:
                return
    pytest.fail("ten times somebody else has come meanwhile")


@pytest.fixture
def quiet(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> Pulse:
    """While no id is given out, and it is never time to list all."""
    monkeypatch.setattr(follow_check, "LISTING_SECONDS", 1e9)
    monkeypatch.setattr(processes, "newest_pid", lambda: 7)

    def lists_no_more() -> bool:
        pulse.take()
        return not (pulse._young or pulse._once_more) and pulse._newest == 7

    until(lists_no_more, "a moment in which nobody comes")
    return pulse


def test_while_no_id_is_given_out_they_are_not_listed(quiet: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed() -> list[int]:
        pytest.fail("listed")

    monkeypatch.setattr(processes, "pids", listed)
    assert not quiet.take().born


def test_who_has_chosen_his_id_is_seen_when_it_is_time_to_list_all(quiet: Pulse) -> None:
    with child() as pid:
        assert not quiet.take().born
        quiet._list_all_at = 0
        assert pid in quiet.take().born


def test_who_has_the_newest_id_and_is_not_listed_yet_is_seen_at_the_next_check(
    quiet: Pulse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives out an id before its process can be found."""
    before = processes.pids()
    with child() as pid, monkeypatch.context() as patched:
        monkeypatch.setattr(processes, "newest_pid", lambda: pid)
        patched.setattr(processes, "pids", lambda: before)
        assert not quiet.take().born
        patched.undo()
        assert pid in quiet.take().born


def test_where_proc_shows_another_namespace_all_are_listed(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "newest_pid", lambda: None)
    pulse.take()
    with child() as pid:
        assert pid in pulse.take().born
