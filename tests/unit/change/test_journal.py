"""The journal: what is recorded is there, whatever happens to the process that recorded it."""

import multiprocessing
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from napctl.change import journal as module
from napctl.change.journal import Journal, state_directory
from napctl.model.change import Change, CoalescingChange, EpollChange, NapiChange, RingsChange, State, Transaction
from napctl.model.errors import BadInput, NapctlError
from napctl.model.machine import Coalescing, DimProfile
from napctl.model.plan import RingSizes
from napctl.model.settings import EpollParams, NapiSettings
from napctl.model.value import to_json
from tests.strategies import examples

U32, U64, INT = st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.integers(1, 2**31)
NAPI_SETTINGS = st.builds(
    NapiSettings,
    defer_hard_irqs=st.none() | U32,
    gro_flush_timeout_ns=st.none() | U64,
    irq_suspend_timeout_ns=st.none() | U64,
)
EPOLL_PARAMS = st.builds(
    EpollParams, busy_poll_usecs=U32, busy_poll_budget=st.integers(0, 65535), prefer_busy_poll=st.booleans()
)
PROFILE = st.lists(st.builds(DimProfile, usecs=st.none() | U32, pkts=U32), max_size=5).map(tuple)
COALESCING = st.builds(
    Coalescing, rx_usecs=st.none() | U32, use_adaptive_rx=st.none() | st.booleans(), rx_profile=st.none() | PROFILE
)
SIZES = st.builds(RingSizes, rx=st.none() | U32, tx=st.none() | U32)
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(
        NapiChange, netns=U64, device=st.text(max_size=15), ifindex=INT, napi_id=INT, before=NAPI_SETTINGS,
        after=NAPI_SETTINGS,
    ),
    st.builds(
        EpollChange, pid=INT, name=st.text(max_size=15), started_ticks=U64, epoll_fd=INT, before=EPOLL_PARAMS,
        after=EPOLL_PARAMS,
    ),
    st.builds(
        CoalescingChange, netns=U64, device=st.text(max_size=15), ifindex=INT, queue=st.none() | U32, before=COALESCING,
        after=COALESCING, found=st.none() | COALESCING,
    ),
    st.builds(RingsChange, netns=U64, device=st.text(max_size=15), ifindex=INT, before=SIZES, after=SIZES),
)  # fmt: skip
TRANSACTIONS = st.builds(
    Transaction, boot_id=st.uuids().map(str), made_unix_ns=U64, pid=INT, name=st.text(max_size=15), started_ticks=U64,
    changes=st.lists(CHANGES, max_size=4).map(tuple),
)  # fmt: skip
STATES: tuple[State, ...] = get_args(State)


def a_transaction(pid: int = 1) -> Transaction:
    return Transaction(boot_id="boot", made_unix_ns=1, pid=pid, name="server", started_ticks=1, changes=())


def numbered(transaction: Transaction, number: int, state: State) -> Transaction:
    return replace(transaction, number=number, state=state)


def live(journal: Journal) -> list[Transaction]:
    """Without the times, which the journal gives itself."""
    return [replace(each, since_unix_ns=0) for each in journal.live()]


class AnySequence(RuleBasedStateMachine):
    """Any sequence of begin, set_state and reopening keeps exactly what is live, in the order in which it began."""

    numbers = Bundle[int]("numbers")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.journal = Journal(Path(self.directory.name))
        self.expected: dict[int, Transaction] = {}

    @rule(target=numbers, transaction=TRANSACTIONS)
    def begin(self, transaction: Transaction) -> int:
        number = self.journal.begin(transaction)
        assert number not in self.expected
        self.expected[number] = numbered(transaction, number, "changing")
        return number

    @rule(number=numbers, state=st.sampled_from(STATES))
    def set_state(self, number: int, state: State) -> None:
        self.journal.set_state(number, state)
        self.expected[number] = numbered(self.expected[number], number, state)

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.journal = Journal(Path(self.directory.name))

    @invariant()
    def live_is_all_that_is_not_restored(self) -> None:
        expected = [self.expected[number] for number in sorted(self.expected)]
        assert live(self.journal) == [each for each in expected if each.state != "restored"]

    def teardown(self) -> None:
        self.journal.close()
        self.directory.cleanup()


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=examples(8, 40), stateful_step_count=12)


@given(TRANSACTIONS)
@settings(max_examples=examples(10, 50))
def test_a_transaction_comes_back_as_it_was_recorded(transaction: Transaction) -> None:
    with tempfile.TemporaryDirectory() as directory:
        with Journal(Path(directory)) as journal:
            number = journal.begin(transaction)
        with Journal(Path(directory)) as journal:
            assert live(journal) == [numbered(transaction, number, "changing")]


@given(TRANSACTIONS, TRANSACTIONS)
@settings(max_examples=examples(5, 25))
def test_updating_records_what_became_of_the_changes(transaction: Transaction, found: Transaction) -> None:
    with tempfile.TemporaryDirectory() as directory, Journal(Path(directory)) as journal:
        finished = replace(transaction, number=journal.begin(transaction), changes=found.changes)
        journal.update(finished, "applied")
        assert live(journal) == [replace(finished, state="applied")]


def test_history_keeps_what_was_restored_and_when(tmp_path: Path) -> None:
    start = time.time_ns()
    with Journal(tmp_path) as journal:
        journal.set_state(journal.begin(a_transaction(1)), "restored")
        journal.begin(a_transaction(2))
        assert [(each.pid, each.state) for each in journal.all()] == [(1, "restored"), (2, "changing")]
        assert all(start <= each.since_unix_ns <= time.time_ns() for each in journal.all())


def test_a_journal_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    body = (
        '{"number":0,"state":"changing","boot_id":"b","made_unix_ns":1,"pid":7,"name":"memcached","started_ticks":3,'
        '"changes":[{"type":"napi","netns":4,"device":"eth0","ifindex":2,"napi_id":8193,"before":{"defer_hard_irqs":0},'
        '"after":{"defer_hard_irqs":100}}]}'
    )
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute(
            "CREATE TABLE transactions (number INTEGER PRIMARY KEY, state TEXT NOT NULL"
            " CHECK (state IN ('changing', 'attached', 'restoring', 'restored')), body TEXT NOT NULL) STRICT"
        )
        database.execute("INSERT INTO transactions VALUES (5, 'attached', ?)", (body,))
        database.execute("PRAGMA user_version=1")
    database.close()

    for _ in range(2):
        with Journal(tmp_path) as journal:
            (kept,) = journal.live()
            assert (kept.number, kept.state, kept.kind, kept.name, kept.pid) == (
                5,
                "attached",
                "attach",
                "memcached",
                7,
            )
    with Journal(tmp_path) as journal:
        assert journal.begin(a_transaction()) == 6
        journal.set_state(6, "unconfirmed")


# Forgetting


def restored(journal: Journal, count: int) -> list[int]:
    numbers = [journal.begin(a_transaction()) for _ in range(count)]
    for number in numbers:
        journal.set_state(number, "restored")
    return numbers


def kept(journal: Journal) -> list[int]:
    return [each.number for each in journal.all()]


def test_the_newest_restored_are_kept_and_all_that_is_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RESTORED", 5)
    with Journal(tmp_path) as journal:
        first = journal.begin(a_transaction())
        numbers = restored(journal, 20)
        last = journal.begin(a_transaction())

        assert kept(journal) == [first, *numbers[-5:], last]
        journal.set_state(first, "restored")
        assert kept(journal) == [first, *numbers[-4:], last], "it was restored just now"


def test_of_what_is_restored_so_many_bytes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path) as journal:
        numbers = restored(journal, 10)
        (bytes_each,) = journal._database.execute("SELECT max(length(body)) FROM transactions").fetchone()
        monkeypatch.setattr(module, "MOST_RESTORED_BYTES", 3 * bytes_each)
        journal.set_state(numbers[-1], "restored")

        assert kept(journal) == numbers[-3:]


def test_what_was_restored_long_ago_is_forgotten(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        old, recent, last = restored(journal, 3)
        for number, days in ((old, 91), (recent, 89)):
            since = time.time_ns() - days * 24 * 3600 * 10**9
            journal._database.execute("UPDATE transactions SET since_unix_ns = ? WHERE number = ?", (since, number))
        journal.set_state(last, "restored")

        assert kept(journal) == [recent, last]
        journal._database.execute("UPDATE transactions SET since_unix_ns = 1 WHERE number = ?", (recent,))
    with Journal(tmp_path) as journal:
        assert kept(journal) == [last], "also if nothing was restored since"


def test_no_number_is_given_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RESTORED", 0)
    with Journal(tmp_path) as journal:
        assert restored(journal, 3) + restored(journal, 3) == [1, 2, 3, 4, 5, 6]


@pytest.mark.heavy
def test_a_journal_that_grew_for_years_is_taken_over_without_its_past(tmp_path: Path) -> None:
    path, count = tmp_path / "journal.sqlite", 100_000
    body = to_json(replace(a_transaction(), name="x" * 500)).decode()
    now = time.time_ns()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(module.TABLE)
        rows = (("restored", now - count + number, body) for number in range(count))
        database.executemany("INSERT INTO transactions (state, since_unix_ns, body) VALUES (?, ?, ?)", rows)
        database.execute("UPDATE transactions SET state = 'attached' WHERE number = 7")
        database.execute("PRAGMA user_version=2")

    with Journal(tmp_path) as journal:
        assert [each.number for each in journal.live()] == [7]
        assert kept(journal) == [7, *range(count - 999, count + 1)]
    assert path.stat().st_size < 2_000_000


def test_no_past_transaction_is_read_to_find_those_in_force(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        past, present = restored(journal, 1)[0], journal.begin(a_transaction())
        journal._database.execute("UPDATE transactions SET body = 'unreadable' WHERE number = ?", (past,))

        assert [each.number for each in journal.live()] == [present]
        assert [each.number for each in Journal.read(tmp_path, live=True)] == [present]


DIES = """
import os, signal, sys
from pathlib import Path
from napctl.change.journal import Journal
from napctl.model.change import Transaction
with Journal(Path(sys.argv[1])) as journal:
    kept = journal.begin(Transaction(boot_id="b", made_unix_ns=1, pid=7, name="n", started_ticks=1, changes=()))
    journal.set_state(kept, "attached")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_recorded_survives_kill_9_and_so_does_the_lock(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False)

    assert died.returncode == -signal.SIGKILL
    with Journal(tmp_path) as journal:
        (live,) = journal.live()
        assert (live.pid, live.state) == (7, "attached")


def record(directory: Path, pid: int, times: int) -> None:
    for _ in range(times):
        with Journal(directory) as journal:
            before = len(journal.live())
            journal.begin(a_transaction(pid))
            assert len(journal.live()) == before + 1, "somebody else wrote meanwhile"


def test_processes_are_serialised_by_the_lock(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=record, args=(tmp_path, pid, 10)) for pid in (1, 2, 3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with Journal(tmp_path) as journal:
        assert len(journal.live()) == 30


def test_a_lock_held_for_long_is_an_error_that_says_so(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(NapctlError, match=r"another napctl \(pid \d+: .*\) is changing settings"):
        Journal(tmp_path, patience_seconds=0.1)


@pytest.mark.parametrize("statements", [(), (module.TABLE,)])
def test_a_journal_that_another_napctl_is_just_making_reads_as_empty_without_waiting(
    tmp_path: Path, statements: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0)
    with Journal(tmp_path) as held:
        held.path.unlink()
        with closing(sqlite3.connect(held.path)) as database:
            for statement in statements:
                database.execute(statement)

        assert Journal.read(tmp_path) == []


def test_a_failed_opening_does_not_keep_the_lock(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database at all" * 100)
    for _ in range(3):
        with pytest.raises(BadInput, match=r"journal\.sqlite"):
            Journal(tmp_path)
    (tmp_path / "journal.sqlite").unlink()
    with Journal(tmp_path) as journal:
        assert journal.live() == []


def test_nobody_but_its_owner_reads_the_journal(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "deep"
    with Journal(directory) as journal:
        journal.begin(a_transaction())

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_asking_whether_there_is_a_journal_creates_nothing(tmp_path: Path) -> None:
    assert not Journal.exists(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []
    with Journal(tmp_path / "state"):
        assert Journal.exists(tmp_path / "state")


def test_the_place_of_the_journal_is_var_lib_unless_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NAPCTL_STATE_DIR", raising=False)
    assert state_directory() == Path("/var/lib/napctl")
    monkeypatch.setenv("NAPCTL_STATE_DIR", "")
    assert state_directory() == Path("/var/lib/napctl")
    monkeypatch.setenv("NAPCTL_STATE_DIR", str(tmp_path))
    assert state_directory() == tmp_path


def test_every_commit_is_flushed_to_the_disk(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        (level,) = journal._database.execute("PRAGMA synchronous").fetchone()
        (mode,) = journal._database.execute("PRAGMA journal_mode").fetchone()

    assert level == 3, "EXTRA: the directory is flushed as well"
    assert mode == "delete"


def test_what_is_in_force_is_found_without_decoding_what_was_restored(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal._database.execute("INSERT INTO transactions (state, body) VALUES ('restored', 'no longer readable')")
        assert journal.live() == []
        with pytest.raises(BadInput):
            journal.all()
