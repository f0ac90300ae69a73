"""The transaction of a followed target, and what becomes of its record."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.attach.attachment import others_of, refuse_second
from napctl.attach.follow_memory import Known
from napctl.attach.follow_step import Step
from napctl.attach.follow_transaction import FollowedTransaction
from napctl.attach.follow_words import Words
from napctl.attach.target import attached_of
from napctl.change import journal as module
from napctl.change.journal import Journal
from napctl.change.recovery import alive
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.processes import Process, process
from napctl.kernel.running_kernel import boot_id
from napctl.model.activity import attached_pids
from napctl.model.change import EpollChange, NapiChange, ThreadChange
from napctl.model.errors import BadInput
from napctl.model.settings import EpollParams, NapiSettings, ThreadSettings
from napctl.model.suspension import Suspension
from tests.lab.helpers import QUICKLY
from tests.unit.change.keeping import ME, OF_SERVICE, recorded

UNSET = EpollParams(busy_poll_usecs=0, busy_poll_budget=0, prefer_busy_poll=False)
EPOLL = EpollChange(pid=1, name="server", started_ticks=1, epoll_fd=5, before=UNSET, after=UNSET)
THREAD = ThreadChange(
    netns=1, device="eth0", ifindex=2, napi_id=300, before=ThreadSettings(threaded="disabled"),
    after=ThreadSettings(threaded="enabled"),
)  # fmt: skip


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def followed(tmp_path: Path, told: list[str]) -> FollowedTransaction:
    """The second in the journal."""
    words = Words(lambda line, _kind=None: told.append(line))
    found = FollowedTransaction(tmp_path, OF_SERVICE, "", Known(QUICKLY), words)
    with Journal(tmp_path) as journal:
        recorded(journal, OF_SERVICE, ME)
        found.current = journal.update(replace(recorded(journal, OF_SERVICE, ME), made_unix_ns=7), "attached")
    return found


def number_of(followed: FollowedTransaction) -> int:
    assert followed.current is not None
    return followed.current.number


@pytest.mark.parametrize("others", [0, 1, 2, 3])
def test_what_a_journal_that_was_moved_away_has_taken_with_it_is_recorded_anew_and_put_back_in_the_end(
    others: int, followed: FollowedTransaction, tmp_path: Path
) -> None:
    """Also where its number is another's by now."""
    (tmp_path / "journal.sqlite").unlink()
    with Journal(tmp_path) as journal:
        theirs = [recorded(journal, OF_SERVICE, ME) for _ in range(others)]
        assert followed.others(journal) == theirs
        assert number_of(followed) == others + 1
        assert followed.others(journal) == theirs
        assert [each.number for each in journal.live()] == list(range(1, others + 2))

    (tmp_path / "journal.sqlite").unlink()
    followed.detach(())
    assert followed.current is None
    with Journal(tmp_path) as journal:
        assert [each.state for each in journal.all()] == ["restored"]


def test_what_somebody_has_put_back_is_told_also_if_that_is_forgotten_by_now(
    followed: FollowedTransaction, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_RESTORED", 0)
    with Journal(tmp_path) as journal:
        journal.set_state(number_of(followed), "restored")
        newer = recorded(journal, OF_SERVICE, ME)
        journal.set_state(newer.number, "restored")
        assert journal.find(number_of(followed)) is None, "forgotten"
        assert followed.others(journal) is None
    assert followed.current is None
    followed._words.tell_all()
    (line,) = told
    assert line.endswith("somebody else has detached it")


def test_of_a_mode_of_instances_all_processes_of_the_target_are_recorded_and_told_anew_when_others_come(
    followed: FollowedTransaction, tmp_path: Path
) -> None:
    ours = process(os.getpid())
    assert ours is not None
    first, gone, new = (replace_process(ours, pid) for pid in (os.getpid(), 4_194_300, 4_194_301))
    assert followed.current is not None
    followed.current = replace(
        followed.current, pid=first.pid, started_ticks=first.started_ticks,
        also=others_of((), [first, gone]), changes=(THREAD,),
    )  # fmt: skip
    assert followed.has_all([first, gone])
    assert followed.has_all([gone, first])
    assert not followed.has_all([first, new])
    assert not followed.has_all([first])
    with Journal(tmp_path) as journal:
        followed.amend(journal, Step(), [first, new])
    assert [each.pid for each in followed.current.also] == [new.pid]
    assert followed.has_all([first, new])
    assert attached_pids(followed.current) == (first.pid, new.pid)
    assert others_of([EPOLL], [first, new]) == (), "its changes tell"


def test_it_is_attached_as_long_as_one_of_its_processes_runs(followed: FollowedTransaction) -> None:
    ours = process(os.getpid())
    assert ours is not None
    assert followed.current is not None
    dead = replace(followed.current, boot_id=boot_id(), pid=4_194_300, started_ticks=1, changes=(THREAD,))
    kept = replace(dead, also=others_of((), [ours, ours]))
    assert (alive(dead), alive(kept)) == (False, True)
    assert attached_of([ours], [dead, kept]) == [kept]
    followed.current = kept
    assert not followed.settled, "it is to be named for another one"
    followed.current = replace(kept, pid=ours.pid, started_ticks=ours.started_ticks)
    assert followed.settled
    with pytest.raises(BadInput, match="already attached"):
        refuse_second([ours], [kept])


def replace_process(one: Process, pid: int) -> Process:
    return Process(pid=pid, name=one.name, started_ticks=one.started_ticks)


def test_a_device_that_is_no_more_is_forgotten_and_one_that_is_down_is_not(
    followed: FollowedTransaction, tmp_path: Path
) -> None:
    """Or one for each container that ever was would be looked for."""
    ours = NetworkNamespace.current()
    there, gone = (ours.inode, 1), (ours.inode, 2**30)
    for netns, ifindex in (there, gone):
        followed._gone[netns, ifindex] = NapiChange(
            netns=netns, device="eth9", ifindex=ifindex, napi_id=9, before=NapiSettings(), after=Suspension().napi
        )
    with Journal(tmp_path) as journal:
        followed._put_back_what_was_kept(journal)
    assert followed._gone.keys() == {there}
