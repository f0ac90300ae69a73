"""A journal that cannot be read, written or had: one clear line, the documented status, nothing changed."""

import fcntl
import os
import sqlite3
from pathlib import Path

import pytest

from napctl.lab.servers import Server
from tests.lab.helpers import Napctl, in_mounts, open_files, until

pytestmark = pytest.mark.lab


def write_garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def write_other_version(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    database.close()


def write_other_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE transactions (some TEXT, thing TEXT)")
    database.close()


def write_garbage_record(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE transactions SET body = substr(body, 3)")
    database.close()


def write_unknown_key(path: Path) -> None:
    """As a later napctl might write it."""
    with sqlite3.connect(path) as database:
        database.execute("UPDATE transactions SET body = '{\"surprise\":1,' || substr(body, 2)")
    database.close()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5000)


@pytest.mark.parametrize(
    "damage",
    [write_garbage, write_other_version, write_other_database, write_garbage_record, write_unknown_key, truncate],
)
def test_an_unreadable_journal_is_named_and_nothing_is_changed(
    damage: object, unchanged: None, server: Server, napctl: Napctl
) -> None:
    napctl.attach_quickly(server.pid)
    journal = napctl.state / "journal.sqlite"
    intact = journal.read_bytes()
    if damage is write_other_database:
        journal.unlink()
    assert callable(damage)
    damage(journal)
    damaged = journal.read_bytes()

    for command in (("attach", server.pid), ("detach", server.pid), ("detach", "--all"), ("recover",)):
        assert napctl(*command).failed_with(2, str(journal)), command
        assert journal.read_bytes() == damaged or damage is write_other_database, command

    journal.write_bytes(intact)
    assert napctl("detach", server.pid).status == 0


def test_a_journal_on_a_read_only_file_system_changes_nothing(unchanged: None, server: Server, napctl: Napctl) -> None:
    napctl.state.mkdir()
    read_only = in_mounts(f"mount --bind {napctl.state} {napctl.state}; mount -o remount,ro,bind {napctl.state}")

    done = napctl("attach", server.pid, under=read_only)

    assert done.failed_with(6, str(napctl.state), "Read-only file system", "nothing was changed")


@pytest.mark.parametrize("free_bytes", [0, 4096, 8192])
def test_a_full_disk_for_the_journal_changes_nothing(
    free_bytes: int, unchanged: None, server: Server, napctl: Napctl
) -> None:
    napctl.state.mkdir()
    fill = (
        f"mount -t tmpfs -o size=64k tmpfs {napctl.state}; head -c {65536 - free_bytes} /dev/zero > {napctl.state}/fill"
    )

    done = napctl("attach", server.pid, under=in_mounts(fill))

    assert done.failed_with(6, str(napctl.state), "nothing was changed")


def test_another_napctl_that_is_changing_settings_is_waited_for(
    unchanged: None, server: Server, napctl: Napctl
) -> None:
    napctl.state.mkdir()
    with (napctl.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with napctl.start("attach", server.pid, "--window", 0) as waiting:
            until(lambda: str(napctl.state / "lock") in open_files(waiting.pid), "napctl to wait for the lock")
            assert not any(napctl.state.glob("journal*"))
            fcntl.flock(lock, fcntl.LOCK_UN)
            output, errors = waiting.communicate(timeout=20)

    assert (waiting.returncode, errors) == (0, ""), output
    assert napctl("detach", server.pid).status == 0
