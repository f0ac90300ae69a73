"""The transaction of a followed target, and what becomes of its record."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.attach.follow_memory import Known
from napctl.attach.follow_transaction import FollowedTransaction
from napctl.attach.follow_words import Words
from napctl.change import journal as module
from napctl.change.journal import Journal
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import NapiChange
from napctl.model.settings import NapiSettings
from napctl.model.suspension import Suspension
from tests.lab.helpers import QUICKLY
from tests.unit.change.keeping import ME, OF_SERVICE, recorded


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
