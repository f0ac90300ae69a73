"""The journal: every change is on disk before it is made, so that it can be undone after a crash at any instruction.

One SQLite database under NAPCTL_STATE_DIR (default /var/lib/napctl). `synchronous=EXTRA` makes every commit survive
the loss of power (https://sqlite.org/pragma.html#pragma_synchronous). A lock lets one napctl change settings at a time.
"""

import fcntl
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self, get_args

from msgspec.structs import replace

from napctl.model.change import State, Transaction
from napctl.model.errors import BadInput, NapctlError, NotPermitted, RolledBack
from napctl.model.value import from_json, to_json

VERSION = 2
LOCK_SECONDS = 5
STATES = ", ".join(f"'{state}'" for state in get_args(State))
TABLE = f"""
    CREATE TABLE IF NOT EXISTS transactions (
        number INTEGER PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ({STATES})),
        since_unix_ns INTEGER NOT NULL DEFAULT 0,
        body TEXT NOT NULL
    ) STRICT
"""
SELECT = "SELECT number, state, since_unix_ns, body FROM transactions ORDER BY number"
SELECT_LIVE = "SELECT number, state, since_unix_ns, body FROM transactions WHERE state != 'restored' ORDER BY number"
"""What was restored years ago is passed over by SQLite, and not decoded."""
FROM_VERSION_1 = (
    "BEGIN IMMEDIATE",
    "ALTER TABLE transactions RENAME TO earlier",
    TABLE,
    "INSERT INTO transactions (number, state, body) SELECT number, state, body FROM earlier",
    "DROP TABLE earlier",
    "PRAGMA user_version=2",
    "COMMIT",
)
"""Version 1 knew attachments only."""


def state_directory() -> Path:
    """Where napctl keeps what must survive it."""
    return Path(os.environ.get("NAPCTL_STATE_DIR") or "/var/lib/napctl")


class Journal:
    """The journal, locked for this process while open. Use as a context manager.

    Raises NotPermitted if the directory cannot be written, BadInput if the file is no journal of this version,
    RolledBack if the disk is full, NapctlError if another napctl holds the lock.
    """

    def __init__(self, directory: Path | None = None):
        self.directory = directory or state_directory()
        self.path = self.directory / "journal.sqlite"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError:
            raise NotPermitted(f"{self.directory}: not writable; be root or set NAPCTL_STATE_DIR") from None
        except OSError as error:
            raise _cannot_write(self.directory, error.strerror or "cannot be created") from None
        try:
            self._take_lock()
            self._database = self._open()
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def exists(cls, directory: Path | None = None) -> bool:
        """Whether anything was ever recorded; asking creates nothing."""
        path = (directory or state_directory()) / "journal.sqlite"
        try:
            return path.exists()
        except PermissionError:  # raised by Python 3.11
            raise NotPermitted(f"{path}: not readable; be root or set NAPCTL_STATE_DIR") from None

    @classmethod
    def read(cls, directory: Path | None = None) -> list[Transaction]:
        """All that was recorded, oldest first, without the lock: also while another napctl is at work.

        Raises what opening raises.
        """
        if not cls.exists(directory):
            return []
        path = (directory or state_directory()) / "journal.sqlite"
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                (version,) = database.execute("PRAGMA user_version").fetchone()
                if version == VERSION:
                    return [_transaction(path, *row) for row in database.execute(SELECT)]
                if version == 0 and not _foreign_tables(database):
                    return []  # another napctl is just making it
        except sqlite3.DatabaseError:
            pass  # half written by one that was killed, or no journal: opening it for writing mends it, or says so
        with cls(directory) as journal:
            return journal.all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let the lock go."""
        try:
            self._database.close()
        finally:  # or the lock would outlast an interruption
            os.close(self._lock)

    def begin(self, transaction: Transaction) -> int:
        """Record what is about to be changed; on disk when this returns. Returns its number. Raises RolledBack."""
        with self._writing() as cursor:
            body = to_json(transaction).decode()
            cursor.execute(
                "INSERT INTO transactions (state, since_unix_ns, body) VALUES (?, ?, ?)",
                (transaction.state, time.time_ns(), body),
            )
            number = cursor.lastrowid
        assert number is not None
        return number

    def set_state(self, number: int, state: State) -> None:
        """Record how far a transaction has come. Raises RolledBack."""
        with self._writing() as cursor:
            query = "UPDATE transactions SET state = ?, since_unix_ns = ? WHERE number = ?"
            cursor.execute(query, (state, time.time_ns(), number))

    def update(self, transaction: Transaction, state: State) -> Transaction:
        """Record what came of its changes so far, and how far it has come; as it is recorded now. Raises RolledBack."""
        now = replace(transaction, state=state, since_unix_ns=time.time_ns())
        with self._writing() as cursor:
            query = "UPDATE transactions SET state = ?, since_unix_ns = ?, body = ? WHERE number = ?"
            cursor.execute(query, (state, now.since_unix_ns, to_json(now).decode(), now.number))
        return now

    def live(self) -> list[Transaction]:
        """Everything that is not restored, oldest first. Raises BadInput if a record cannot be read."""
        return self._all(SELECT_LIVE)

    def all(self) -> list[Transaction]:
        """Everything that was ever recorded, oldest first. Raises BadInput if a record cannot be read."""
        return self._all(SELECT)

    def _all(self, select: str) -> list[Transaction]:
        try:
            with closing(self._database.execute(select)) as rows:
                return [_transaction(self.path, *row) for row in rows]
        except sqlite3.DatabaseError as error:
            raise self._unreadable(str(error)) from None

    def _take_lock(self) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NapctlError(f"{self.directory}: {self._holder()} is changing settings; try again") from None
                time.sleep(0.05)
            else:
                with suppress(OSError):  # a full disk: the next one is told less
                    os.truncate(self._lock, 0)
                    os.pwrite(self._lock, f"{os.getpid()} {' '.join(sys.argv[1:])}".encode(), 0)
                return

    def _holder(self) -> str:
        """Who holds the lock, as it wrote into it."""
        pid, _, arguments = os.pread(self._lock, 200, 0).decode(errors="replace").partition(" ")
        return f"another napctl (pid {pid}: napctl {arguments})" if pid else "another napctl"

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(self.path, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise _cannot_write(self.directory, str(error)) from None
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if not 0 <= version <= VERSION:
                raise self._unreadable(f"it has version {version}, this napctl knows {VERSION}")
            if _foreign_tables(database):
                raise self._unreadable("it is another program's database")
            database.execute("PRAGMA synchronous=EXTRA")
            for statement in FROM_VERSION_1 if version == 1 else ():
                database.execute(statement)
            database.execute(TABLE)
            if version == 0:
                database.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.OperationalError as error:
            database.close()
            raise _cannot_write(self.directory, str(error)) from None
        except sqlite3.DatabaseError as error:
            database.close()
            raise self._unreadable(str(error)) from None
        except BadInput:
            database.close()
            raise
        self.path.chmod(0o600)
        return database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        """One transaction of the database; nothing of it stays if it fails."""
        try:
            with closing(self._database.cursor()) as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    yield cursor
                    cursor.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        cursor.execute("ROLLBACK")
                    raise
        except sqlite3.OperationalError as error:
            raise _cannot_write(self.directory, str(error)) from None
        except sqlite3.DatabaseError as error:
            raise self._unreadable(str(error)) from None

    def _unreadable(self, why: str) -> BadInput:
        return _unreadable(self.path, why)


def _foreign_tables(database: sqlite3.Connection) -> bool:
    return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name <> 'transactions'").fetchone())


def _transaction(path: Path, number: int, state: State, since_unix_ns: int, body: str) -> Transaction:
    try:
        recorded = from_json(body, Transaction)
    except ValueError as error:
        raise _unreadable(path, f"record {number}: {error}") from None
    return replace(recorded, number=number, state=state, since_unix_ns=since_unix_ns)


def _unreadable(path: Path, why: str) -> BadInput:
    return BadInput(f"{path}: unreadable journal: {why}; move it away to start a new one")


def _cannot_write(directory: Path, why: str) -> RolledBack:
    return RolledBack(f"{directory}: the journal cannot be written: {why}; nothing was changed")
