"""A journal that cannot be read, written or had: one clear line, the documented status, nothing changed."""

import fcntl
import os
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from napctl.change import journal as journal_module
from napctl.change.journal import Journal
from napctl.change.transaction import amend, apply, begun, restore
from napctl.lab.bed import Lab
from napctl.lab.servers import Server, memcached
from napctl.model.change import NapiChange, State, Transaction
from napctl.model.errors import RolledBack
from napctl.model.settings import NapiSettings
from tests.lab.helpers import Napctl, ask, at_server, ending, in_mounts, machine_of, open_files, until

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
    disk = f"mount -t tmpfs -o size=64k,mode=700 tmpfs {napctl.state}"
    fill = f"{disk}; head -c {65536 - free_bytes} /dev/zero > {napctl.state}/fill"

    done = napctl("attach", server.pid, under=in_mounts(fill))

    assert done.failed_with(6, str(napctl.state), "nothing was changed")


READ_ONLY = "mount --bind {0} {0}; mount -o remount,ro,bind {0}"


def test_on_a_file_system_that_has_become_read_only_nothing_is_begun(bed: Lab, plan: Path, napctl: Napctl) -> None:
    with Journal(napctl.state):
        pass
    before = machine_of(bed.server)
    read_only = in_mounts(READ_ONLY.format(napctl.state))
    with ending(memcached(bed)) as server, ask(bed, server):
        for command in (
            ("attach", server.pid),
            ("apply", plan, *at_server(bed)),
            ("apply", plan, "--confirm-within", "60s", *at_server(bed)),
        ):
            assert napctl(*command, under=read_only).failed_with(6, str(napctl.state), "nothing was changed"), command
    assert machine_of(bed.server) == before
    until(lambda: not napctl.guards(), "the end of the guards")


@pytest.mark.parametrize("command", ["detach", "recover"])
def test_on_a_file_system_that_has_become_read_only_everything_is_still_put_back(
    command: str, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    made = napctl.attach_quickly(server.pid)
    if command == "recover":
        with Journal(napctl.state) as journal:
            journal.set_state(made.number, "changing")
    arguments = (server.pid,) if command == "detach" else ()

    done = napctl(command, *arguments, under=in_mounts(READ_ONLY.format(napctl.state)))

    assert machine_of(lab.server) == before
    assert done.status == 6
    assert done.stderr.splitlines()[-1].startswith(f"napctl: {napctl.state}: the journal cannot be written")
    assert "the settings were put back" in done.stderr
    assert napctl("detach", "--all").status == 0
    assert napctl.live() == []


@pytest.mark.parametrize("trouble", ["mount -o remount,ro {0}", "cat /dev/zero > {0}/fill"])
def test_who_stays_puts_everything_back_whatever_has_become_of_the_disk(
    trouble: str, lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    napctl.state.mkdir()
    own_disk = in_mounts(f"mount -t tmpfs -o size=64k,mode=700 none {napctl.state}")
    with napctl.start("attach", server.pid, "--stay", "--defer-us", 200, under=own_disk) as staying:
        assert staying.stdout is not None
        assert " attached memcached" in staying.stdout.readline()
        assert machine_of(lab.server) != before
        assert len(until(napctl.guards, "its guard to have its name")) == 1
        script = trouble.format(napctl.state)
        subprocess.run(["nsenter", "-m", "-t", str(staying.pid), "sh", "-c", script], check=False, capture_output=True)
        staying.send_signal(signal.SIGINT)
        _, words = staying.communicate(timeout=60)

    assert machine_of(lab.server) == before
    assert (staying.returncode, words.count("\n")) == (6, 1), words
    assert "the settings were put back" in words
    until(lambda: not napctl.guards(), "the end of the guard")


def test_what_could_be_made_but_not_recorded_is_not_left_in_an_attachment(lab: Lab, napctl: Napctl) -> None:
    """Else the next look would take it for the former value."""
    first, second = (change_of(lab, name) for name in ("gro_flush_timeout_ns", "defer_hard_irqs"))
    with small_disk(napctl.state), FillsTheDisk(napctl.state) as journal:
        made = apply(journal, begun("apply", "x", (first,)), then="applied")
        journal.updates_left = 1
        with pytest.raises(RolledBack, match=r"the journal cannot be written: .*full"):
            amend(journal, made, more=(second,))

        (napi,) = lab.server.napis()
        assert (napi.settings.gro_flush_timeout_ns, napi.settings.defer_hard_irqs) == (200_000, 0)
        (napctl.state / "fill").unlink()
        restore(journal, journal.live()[0])
    (napi,) = lab.server.napis()
    assert (napi.settings.gro_flush_timeout_ns, napi.settings.defer_hard_irqs) == (0, 0)


def test_a_journal_that_grew_for_years_can_be_opened_on_a_full_disk(lab: Lab, napctl: Napctl) -> None:
    """To forget takes room of its own, and has time."""
    change, many = change_of(lab, "gro_flush_timeout_ns"), journal_module.MOST_RESTORED + 500
    with small_disk(napctl.state, "2m"):
        with Journal(napctl.state) as journal:
            apply(journal, begun("attach", "x", (change,)), then="attached")
        with closing(sqlite3.connect(napctl.state / "journal.sqlite")) as database, database:
            query = "INSERT INTO transactions (state, body) SELECT 'restored', body FROM transactions LIMIT 1"
            for _ in range(many):
                database.execute(query)
        fill(napctl.state)

        done = napctl("detach", "--all")

        assert lab.server.napis()[0].settings.gro_flush_timeout_ns == 0
        assert done.failed_with(6, "the journal cannot be written", "the settings were put back")
        (napctl.state / "fill").unlink()
        assert napctl("recover").status == 0
        assert napctl.live() == []
        assert len(napctl("history", "--json").json["transactions"]) <= journal_module.MOST_RESTORED + 1


class FillsTheDisk(Journal):
    """After so many updates more there is no room for the next."""

    updates_left = -1

    def update(self, transaction: Transaction, state: State) -> Transaction:
        if self.updates_left == 0:
            fill(self.directory)
        self.updates_left -= 1
        return super().update(transaction, state)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "fill").open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass


@contextmanager
def small_disk(path: Path, size: str = "64k") -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


def change_of(lab: Lab, setting: str) -> NapiChange:
    (napi,) = lab.server.napis()
    value = {"gro_flush_timeout_ns": 200_000, "defer_hard_irqs": 100}[setting]
    return NapiChange(
        netns=lab.server.namespace.inode, device="server0", ifindex=napi.ifindex, napi_id=napi.napi_id,
        before=NapiSettings(**{setting: 0}), after=NapiSettings(**{setting: value}),  # type: ignore[arg-type]
    )  # fmt: skip


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
            output, errors = waiting.communicate(timeout=60)

    assert (waiting.returncode, errors) == (0, ""), output
    assert napctl("detach", server.pid).status == 0
