"""Whose end the guard of the service notices, and that there is one such guard."""

import gc
import subprocess
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.change.guard_lock import guard_lock, is_on_watch
from napctl.change.journal import Journal
from napctl.change.keeper_watch import Keepers, watch_keepers
from napctl.kernel import processes
from napctl.kernel.open_files import open_files
from napctl.model.change import Keeper
from napctl.model.errors import NapctlError
from tests.unit.change.keeping import ME, OF_SERVICE, OURS, dead, recorded


def test_the_end_of_a_keeper_is_noticed_at_once_and_a_later_process_is_not_taken_for_it() -> None:
    sleeping = subprocess.Popen(["sleep", "60"])
    found = processes.process(sleeping.pid)
    assert found is not None
    keeper = Keeper(pid=found.pid, started_ticks=found.started_ticks)
    later = replace(keeper, started_ticks=found.started_ticks - 1)
    with Keepers() as keepers:
        keepers.follow({keeper, later, ME})
        assert keepers.dead == {later}
        sleeping.kill()
        began = time.monotonic()
        keepers.wait(60, ())
        assert time.monotonic() - began < 50
        keepers.follow({keeper, ME})
        assert keepers.dead == {keeper}
    sleeping.wait()


def test_only_what_is_of_the_service_and_whose_keeper_is_dead_is_restored(tmp_path: Path) -> None:
    left = iter([False, False, True])
    said: list[str] = []
    with Journal(tmp_path) as journal:
        others = [
            recorded(journal, OURS, dead()),
            recorded(journal, OF_SERVICE, ME),
            recorded(journal, OF_SERVICE, None),
        ]
        recorded(journal, OF_SERVICE, dead(), "changing")
    watch_keepers(tmp_path, lambda: next(left), said.append)
    with Journal(tmp_path) as journal:
        assert journal.live() == others
    assert len(said) == 1
    assert said[0].startswith("put back server")


def test_there_is_one_at_a_time_and_it_closes_what_it_holds(tmp_path: Path) -> None:
    gc.collect()  # what earlier tests have left is not closed meanwhile
    before = open_files(ME.pid)
    assert not is_on_watch(tmp_path)
    with guard_lock(tmp_path):
        assert is_on_watch(tmp_path)
        with pytest.raises(NapctlError, match="another guard"):
            watch_keepers(tmp_path, lambda: True, print)
    assert not is_on_watch(tmp_path)
    assert open_files(ME.pid) == before
