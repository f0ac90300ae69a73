"""The journal: every change is on disk before it is made, so that it can be undone after a crash at any instruction.

One SQLite database under NAPCTL_STATE_DIR (default /var/lib/napctl). `synchronous=EXTRA` makes every commit survive
the loss of power (https://sqlite.org/pragma.html#pragma_synchronous). A lock lets one napctl change settings at a time.
What was restored is forgotten after a while; what is in force never is.
"""

import errno
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self, get_args

from msgspec.structs import replace

from napctl.kernel.file_lock import let_go, taken
from napctl.kernel.trusted_paths import refuse_foreign_directory, refuse_foreign_file
from napctl.model.change import State, Transaction
from napctl.model.errors import BadInput, Busy, NotPermitted, RolledBack
from napctl.model.value import from_json, to_json

__all__ = ["MOST_RESTORED", "STATE_VARIABLE", "TABLE", "Journal", "state_directory"]


VERSION = 2
LOCK_SECONDS = 10
"""How long to wait for another napctl: longer than any keeps the lock."""
MOST_RESTORED = 1_000
MOST_RESTORED_BYTES = 20_000_000
MOST_RESTORED_NS = 90 * 24 * 3600 * 10**9
"""What is kept of restored transactions: so many of the newest, so much of their text, for so long; what is least."""
STATES = ", ".join(f"'{state}'" for state in get_args(State))
TABLE = f"""
    CREATE TABLE IF NOT EXISTS transactions (
        number INTEGER PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ({STATES})),
        since_unix_ns INTEGER NOT NULL DEFAULT 0,
        body TEXT NOT NULL
    ) STRICT
"""
SELECT = "SELECT number, state, since_unix_ns, body FROM transactions"
ALL = f"{SELECT} ORDER BY number"
LIVE = f"{SELECT} WHERE state != 'restored' ORDER BY number"
"""What was restored is passed over by SQLite, and not decoded."""
IS_OLD = "SELECT count(*) > ? OR min(since_unix_ns) < ? FROM transactions WHERE state = 'restored'"
"""Whether there may be something to forget, told without reading a body."""
FORGET = """
    DELETE FROM transactions WHERE number < (SELECT max(number) FROM transactions) AND number IN (
        SELECT number FROM (
            SELECT number, since_unix_ns, row_number() OVER newest AS place,
                sum(length(CAST(body AS BLOB))) OVER newest AS bytes
            FROM transactions WHERE state = 'restored' WINDOW newest AS (ORDER BY since_unix_ns DESC, number DESC)
        ) WHERE place > ? OR bytes > ? OR since_unix_ns < ?
    )
"""
"""Not the highest number, which SQLite would give to the next one again."""
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


STATE_VARIABLE = "NAPCTL_STATE_DIR"
"""Names the directory, in the environment."""


def state_directory() -> Path:
    """Where napctl keeps what must survive it."""
    return Path(os.environ.get(STATE_VARIABLE) or "/var/lib/napctl")


class Journal:
    """The journal, locked for this process while open. Use as a context manager.

    Raises NotPermitted if the directory cannot be written, BadInput if the file is no journal of this version or
    somebody else may have written it, RolledBack if the disk is full, Busy if another napctl holds the lock.

    On a file system that has become read-only what is recorded can still be read, and so be undone.
    """

    def __init__(self, directory: Path | None = None, *, patience_seconds: float = LOCK_SECONDS):
        self.directory = directory or state_directory()
        self.path = self.directory / "journal.sqlite"
        self._read_only = False
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_foreign(self.directory)
            self._lock = self._open_lock()
        except PermissionError:
            raise NotPermitted(f"{self.directory}: not writable; be root or set NAPCTL_STATE_DIR") from None
        except OSError as error:
            raise _cannot_write(self.directory, error.strerror or "cannot be created") from None
        try:
            self._take_lock(patience_seconds)
            self._database = self._open()
            self._forget_if_old()
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def exists(cls, directory: Path | None = None) -> bool:
        """Whether anything was ever recorded; asking creates nothing."""
        path = (directory or state_directory()) / "journal.sqlite"
        try:
            _refuse_foreign(path.parent)
            return path.exists()
        except PermissionError:  # raised by Python 3.11
            raise NotPermitted(f"{path}: not readable; be root or set NAPCTL_STATE_DIR") from None

    @classmethod
    def read(cls, directory: Path | None = None, *, live: bool = False) -> list[Transaction]:
        """All that is recorded, or only what is not restored, oldest first, without the lock: also while another napctl
        is at work.

        Raises what opening raises.
        """
        if not cls.exists(directory):
            return []
        path = (directory or state_directory()) / "journal.sqlite"
        try:
            with closing(_connected(path, read_only=True)) as database:
                (version,) = database.execute("PRAGMA user_version").fetchone()
                if version == VERSION:
                    return [_transaction(path, *row) for row in database.execute(LIVE if live else ALL)]
                if version == 0 and not _foreign_tables(database):
                    return []  # another napctl is just making it
        except sqlite3.DatabaseError:
            pass  # half written by one that was killed, or no journal: opening it for writing mends it, or says so
        with cls(directory) as journal:
            return journal.live() if live else journal.all()

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

    def let_go(self) -> None:
        """Let others change settings until take_again(); what was read of the journal may be out of date by then."""
        let_go(self._lock)

    def take_again(self, *, patience_seconds: float = LOCK_SECONDS) -> None:
        """The lock, also if it was not let go. Raises Busy if another napctl holds it."""
        self._take_lock(patience_seconds)

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
        if state == "restored":
            self._forget()

    def update(self, transaction: Transaction, state: State) -> Transaction:
        """Record what came of its changes so far, and how far it has come; as it is recorded now. Raises RolledBack."""
        now = replace(transaction, state=state, since_unix_ns=time.time_ns())
        with self._writing() as cursor:
            query = "UPDATE transactions SET state = ?, since_unix_ns = ?, body = ? WHERE number = ?"
            cursor.execute(query, (state, now.since_unix_ns, to_json(now).decode(), now.number))
        return now

    def live(self) -> list[Transaction]:
        """Everything that is not restored, oldest first. Raises BadInput if a record cannot be read."""
        return self._select(LIVE)

    def all(self) -> list[Transaction]:
        """Everything that is recorded, oldest first. Raises BadInput if a record cannot be read."""
        return self._select(ALL)

    def find(self, number: int) -> Transaction | None:
        """The transaction of that number. Raises BadInput if it cannot be read."""
        return next(iter(self._select(f"{SELECT} WHERE number = {number:d}")), None)

    def in_force(self, transaction: Transaction) -> Transaction | None:
        """One that was made, as it is recorded now; None: it has been put back. One that is not known here, as its
        journal was moved away, is recorded anew. Raises BadInput if it cannot be read, RolledBack."""
        recorded = self.find(transaction.number)
        if recorded is not None and recorded.made_unix_ns == transaction.made_unix_ns:
            return recorded if recorded.state != "restored" else None
        (newest,) = self._database.execute("SELECT coalesce(max(number), 0) FROM transactions").fetchone()
        if recorded is None and transaction.number <= newest:
            return None  # put back so long ago that it was forgotten
        return replace(transaction, number=self.begin(transaction))

    def _select(self, query: str) -> list[Transaction]:
        try:
            with closing(self._database.execute(query)) as rows:
                return [_transaction(self.path, *row) for row in rows]
        except sqlite3.DatabaseError as error:
            raise self._unreadable(str(error)) from None

    def _forget(self) -> None:
        """What need not be kept any more. On a full or read-only disk that has time."""
        bounds = (MOST_RESTORED, MOST_RESTORED_BYTES, time.time_ns() - MOST_RESTORED_NS)
        with suppress(sqlite3.OperationalError):
            forgotten = self._database.execute(FORGET, bounds).rowcount
            if forgotten > MOST_RESTORED:  # all at once: an earlier napctl forgot nothing, and its file is large
                self._database.execute("VACUUM")

    def _forget_if_old(self) -> None:
        with suppress(sqlite3.DatabaseError):  # what is wrong with it, who reads it is told
            bounds = (MOST_RESTORED, time.time_ns() - MOST_RESTORED_NS)
            if self._database.execute(IS_OLD, bounds).fetchone()[0]:
                self._forget()

    def _open_lock(self) -> int:
        path = self.directory / "lock"
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
        except OSError as error:
            if error.errno != errno.EROFS or not path.exists():
                raise
            self._read_only = True
            return os.open(path, os.O_RDONLY | flags)

    def _take_lock(self, patience_seconds: float) -> None:
        if not taken(self._lock, patience_seconds=patience_seconds):
            raise Busy(f"{self.directory}: {self._holder()} is changing settings; try again")
        with suppress(OSError):  # a full disk: the next one is told less
            os.truncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()} {' '.join(sys.argv[1:])}".encode(), 0)

    def _holder(self) -> str:
        """Who holds the lock, as it wrote into it."""
        pid, _, arguments = os.pread(self._lock, 200, 0).decode(errors="replace").partition(" ")
        return f"another napctl (pid {pid}: napctl {arguments})" if pid else "another napctl"

    def _open(self) -> sqlite3.Connection:
        try:
            database = _connected(self.path, read_only=self._read_only)
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
        if not self._read_only:
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


def _connected(path: Path, *, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)


def _refuse_foreign(directory: Path) -> None:
    """Raises BadInput if somebody else may have written what is recorded there."""
    refuse_foreign_directory(directory)
    for name in ("lock", "journal.sqlite", "journal.sqlite-journal"):
        refuse_foreign_file(directory / name)


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
