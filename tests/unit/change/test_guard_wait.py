"""What a guard restores, and when: at once, or when nobody has taken it over in time."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from napctl.change import guard_wait
from napctl.change.guard_lock import guard_lock
from napctl.change.guard_wait import GuardWait
from napctl.change.journal import Journal
from napctl.change.recovery import orphaned, recover
from napctl.kernel.machine_sleep import SleepWatch
from napctl.model.change import Guard, State
from napctl.model.errors import RolledBack
from tests.unit.change.keeping import ME, OF_SERVICE, OURS, WAIT_NS, WAITING, dead, recorded

SECOND = 10**9
HOURS = 8 * 3600 * SECOND


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now_ns = 1000 * SECOND
        monkeypatch.setattr(guard_wait, "now_boot_ns", lambda: self.now_ns)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_what_stands_is_restored_when_the_wait_is_over_and_its_end_is_on_record(tmp_path: Path, clock: Clock) -> None:
    guard = GuardWait()
    with Journal(tmp_path) as journal:
        recorded(journal, WAITING, dead())
        assert guard.restore_due(journal, journal.live()) == []
        deadline = clock.now_ns + WAIT_NS
        (noted,) = journal.live()
        assert noted.guard == replace(WAITING, deadline_boot_ns=deadline)
        assert 0 < guard.seconds_left <= 1

        clock.now_ns = deadline - 1
        assert GuardWait().restore_due(journal, journal.live()) == [], "another guard goes on with that wait"
        clock.now_ns = deadline
        assert [each.number for each in guard.restore_due(journal, journal.live())] == [noted.number]
        assert guard.over
        assert journal.live() == []


@pytest.mark.parametrize("state", ["changing", "restoring"])
def test_what_nobody_can_take_over_is_restored_at_once(state: State, tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        recorded(journal, WAITING, dead(), state)
        server_gone = replace(recorded(journal, WAITING, dead()), pid=dead().pid)
        journal.update(server_gone, "attached")
        recorded(journal, OURS, dead())  # its guard does not wait
        assert len(GuardWait().restore_due(journal, journal.live())) == 3
        assert journal.live() == []


def test_a_full_disk_does_not_make_the_wait_longer(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise RolledBack("full")

    guard = GuardWait()
    with Journal(tmp_path) as journal:
        recorded(journal, WAITING, dead())
        with monkeypatch.context() as patch:
            patch.setattr(journal, "update", full)
            guard.restore_due(journal, journal.live())
            clock.now_ns += WAIT_NS
            assert len(guard.restore_due(journal, journal.live())) == 1


@given(
    kept=st.booleans(), guarded=st.booleans(), waits=st.booleans(), late=st.booleans(),
    state=st.sampled_from(["attached", "applied"]),
)  # fmt: skip
def test_what_stands_is_an_orphan_only_without_a_keeper_and_a_guard_that_waits(
    kept: bool, guarded: bool, waits: bool, late: bool, state: State, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keeper = ME if kept else dead()
    pid, ticks = (ME.pid, ME.started_ticks) if guarded else (dead().pid, 1)
    guard = Guard(pid=pid, started_ticks=ticks, deadline_boot_ns=1 if late else 0, wait_ns=WAIT_NS if waits else 0)
    with Journal(tmp_path_factory.mktemp("state")) as journal:
        one = recorded(journal, guard, keeper, state)
        owned = kept or (guarded and waits and not late)
        assert orphaned(one, journal.directory) == (not owned)
        assert len(list(recover(journal))) == (not owned)
        assert not orphaned(replace(one, keeper=None)), "somebody has attached it to stay"


def test_the_guard_of_the_service_counts_while_some_process_is_it(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        one = recorded(journal, OF_SERVICE, dead())
        with guard_lock(tmp_path):
            assert not orphaned(one, tmp_path)
        assert orphaned(one, tmp_path)


def test_who_is_waited_for_sleeps_as_well_and_has_all_of_his_time_when_the_machine_wakes(
    tmp_path: Path, clock: Clock
) -> None:
    awake_ns = [0]
    guard = GuardWait(SleepWatch(lambda: clock.now_ns, lambda: awake_ns[0]))
    with Journal(tmp_path) as journal:
        recorded(journal, WAITING, dead())
        assert guard.restore_due(journal, journal.live()) == []
        clock.now_ns += HOURS

        assert guard.restore_due(journal, journal.live()) == [], "hours, in which nobody could come"
        (noted,) = journal.live()
        assert noted.guard == replace(WAITING, deadline_boot_ns=clock.now_ns + WAIT_NS)
        clock.now_ns += WAIT_NS - 1
        awake_ns[0] += WAIT_NS - 1
        assert guard.restore_due(journal, journal.live()) == []
        clock.now_ns += 1
        assert len(guard.restore_due(journal, journal.live())) == 1
