"""Another keeper for what is in force, or none."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.change.guard_lock import service_guard
from napctl.change.journal import Journal
from napctl.change.takeover import leave, take_over
from napctl.model.errors import BadInput
from tests.unit.change.keeping import ME, OF_SERVICE, dead, recorded


@pytest.mark.parametrize("state", ["attached", "applied"])
@pytest.mark.parametrize("former", ["dead", "none", "itself"])
def test_the_new_keeper_and_its_guard_are_recorded_and_nothing_else(state: str, former: str, tmp_path: Path) -> None:
    guard = service_guard(5)
    with Journal(tmp_path) as journal:
        keeper = {"dead": dead(), "none": None, "itself": ME}[former]
        one = recorded(journal, replace(OF_SERVICE, deadline_boot_ns=7), keeper, state)  # type: ignore[arg-type]
        taken = take_over(journal, one, guard, ME)
        (now,) = journal.live()
        assert now == taken == replace(one, keeper=ME, guard=guard, since_unix_ns=now.since_unix_ns)


def test_what_is_not_in_force_as_a_whole_or_kept_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        gone = recorded(journal, OF_SERVICE, dead(), "restored")
        half = recorded(journal, OF_SERVICE, dead(), "changing")
        ended = journal.update(replace(recorded(journal, OF_SERVICE, dead()), pid=dead().pid), "attached")
        for each in (gone, half, ended):
            with pytest.raises(BadInput, match="not in force"):
                take_over(journal, each, OF_SERVICE, ME)
        kept = recorded(journal, OF_SERVICE, ME)
        with pytest.raises(BadInput, match=f"pid {ME.pid}"):
            take_over(journal, kept, OF_SERVICE, dead())
        assert journal.find(kept.number) == kept


def test_what_is_left_has_neither_keeper_nor_guard_unless_somebody_has_undone_it(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        one = recorded(journal, OF_SERVICE, ME)
        leave(journal, one)
        (left,) = journal.live()
        assert (left.state, left.keeper, left.guard) == ("attached", None, None)
        journal.set_state(one.number, "restored")
        leave(journal, one)
        assert journal.live() == []
