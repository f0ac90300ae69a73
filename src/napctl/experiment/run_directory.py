"""A run on disk: one directory, readable after a crash at any instruction.

config.json    what was asked for (RunConfig)
machine.json   the machine, as any JSON
baseline.json  what the machine used before the first cell, while nothing was asked of it (Energy); older runs have none
cells.jsonl    each cell as it was measured (Cell), one a line, on disk before the next one begins
raw/NNNN.out   what the load of the cell at that position printed
summary.json   what may be said of it (Summary); not there while cells are still added
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from napctl.kernel.file_lock import taken
from napctl.kernel.trusted_paths import read_own, refuse_foreign_directory, refuse_foreign_file, refuse_link
from napctl.model.energy import Energy
from napctl.model.errors import BadInput, NotPermitted, RolledBack
from napctl.model.experiment import Cell, RunConfig, Summary
from napctl.model.machine import SCHEMA
from napctl.model.value import Value, from_json, to_json

__all__ = ["RunDirectory", "write_bytes"]


V = TypeVar("V", bound=Value)


class RunDirectory:
    """The directory of one run. Nothing is read or made before it is asked for.

    What reads raises BadInput, in one line: no run, another schema version, a malformed file and its line, or one that
    somebody else may have written: a run is gone on with by running the commands that stand in it. What writes raises
    RolledBack if the disk is full, NotPermitted if it may not; what was there before is then as it was.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._config, self._machine = self.path / "config.json", self.path / "machine.json"
        self._cells, self._summary = self.path / "cells.jsonl", self.path / "summary.json"
        self._baseline = self.path / "baseline.json"
        self._files = (self._config, self._machine, self._cells, self._summary, self._baseline)
        self.report = self.path / "report.html"
        """Where its page goes."""

    def create(self, config: RunConfig, machine: Any) -> None:
        """Make the directory, with its parents. Raises BadInput if there is anything in it already."""
        with _writing(self.path):
            try:
                self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
                self._refuse_foreign()
                taken = any(self.path.iterdir())
            except (FileExistsError, NotADirectoryError):
                raise BadInput(f"{self.path}: there is a file of that name; a run needs a directory") from None
            if taken:
                raise BadInput(f"{self.path}: not empty; a run needs a directory of its own")
            (self.path / "raw").mkdir(mode=0o755)
            _replace(self._machine, _pretty(msgspec.json.encode(machine)))
            _replace(self._cells, b"")
            _replace(self._config, _pretty(to_json(config)))  # last: with it, it is a run
            _sync_directory(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other napctl adds cells to this run meanwhile. Raises BadInput if one does, or there is no directory."""
        self._refuse_foreign()
        try:
            held = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            raise NotPermitted(f"{self.path}: not readable") from None
        except OSError as error:
            raise BadInput(f"{self.path}: {error.strerror}") from None
        try:
            if not taken(held):
                raise BadInput(f"{self.path}: another napctl is at work on this run")
            yield
        finally:
            os.close(held)

    def config(self) -> RunConfig:
        """What was asked for."""
        self._refuse_foreign()
        if not self._there(self._config):
            raise BadInput(f"{self.path}: no run of napctl: {self._config.name} is missing")
        return _value(self._read(self._config), RunConfig, str(self._config))

    def machine(self) -> Any:
        """The machine: whatever JSON was recorded."""
        return _parsed(self._read(self._machine), str(self._machine))

    def baseline(self) -> Energy | None:
        """What the machine used before the first cell, or why that is not known; None: nobody tried to measure it."""
        if not self._there(self._baseline):
            return None
        return _value(self._read(self._baseline), Energy, str(self._baseline))

    def write_baseline(self, baseline: Energy) -> None:
        """Record it: once, before the first cell."""
        with _writing(self._baseline):
            _replace(self._baseline, _pretty(to_json(baseline)))

    def cells(self) -> tuple[Cell, ...]:
        """All cells, in the order in which they were measured. A last line without an end is a crash's, no cell."""
        *lines, _half = self._read(self._cells).split(b"\n")
        return tuple(_value(line, Cell, f"{self._cells} line {number}") for number, line in enumerate(lines, 1))

    def append(self, cell: Cell) -> None:
        """Add a cell; on disk when this returns. A summary that does not know of it is removed.

        A figure that is no number is left out, with a warning: JSON has no way to write it.
        """
        with _writing(self._cells):
            self._summary.unlink(missing_ok=True)
            file = os.open(self._cells, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                _append(file, to_json(_finite(cell)) + b"\n")
            finally:
                os.close(file)

    def raw(self, position: int) -> Path:
        """Where the output of the load belongs, for the cell at that position."""
        return self.path / "raw" / f"{position:04d}.out"

    def summary(self) -> Summary | None:
        """What may be said of it; None if nobody has summed it up since the last cell."""
        if not self._there(self._summary):
            return None
        return _value(self._read(self._summary), Summary, str(self._summary))

    def write_summary(self, summary: Summary) -> None:
        """Record what may be said of it."""
        with _writing(self._summary):
            _replace(self._summary, _pretty(to_json(summary)))

    def hand_over(self, uid: int, gid: int) -> None:
        """Let it belong to that user: the directory and all that this user has made in it, and nothing that a link
        leads to. Raises BadInput if the directory is another user's, or reached by a link; NotPermitted."""
        with _writing(self.path), ExitStack() as stack:
            directory = _opened_directory(self.path, None, stack)
            if os.fstat(directory).st_uid != os.geteuid():
                raise BadInput(f"{self.path}: not ours to hand over")
            raw = _opened_directory("raw", directory, stack)
            for holder in (raw, directory):
                for name in os.listdir(holder):  # noqa: PTH208 - of a descriptor
                    _hand_over_file(name, holder, uid, gid)
            for each in (raw, directory):  # last: from then on its owner may put links there
                os.fchown(each, uid, gid)

    def _refuse_foreign(self) -> None:
        """Where somebody else may have written, or the way leads elsewhere."""
        try:
            refuse_foreign_directory(self.path)
            for each in (self.path / "raw", self.report, *self._files):
                refuse_foreign_file(each)
            for each in (self.path / "raw").glob("*"):  # written once, and not read again
                refuse_link(each)
        except PermissionError:
            raise NotPermitted(f"{self.path}: not readable") from None
        except OSError as error:
            raise BadInput(f"{self.path}: {error.strerror}") from None

    def _there(self, file: Path) -> bool:
        try:
            return file.exists()
        except PermissionError:  # raised by Python 3.11
            raise NotPermitted(f"{file}: not readable") from None

    def _read(self, file: Path) -> bytes:
        try:
            return read_own(file)
        except PermissionError:
            raise NotPermitted(f"{file}: not readable") from None
        except OSError as error:
            raise BadInput(f"{file}: {error.strerror}") from None


# Reading


def _parsed(data: bytes, where: str) -> Any:
    """Any JSON. Raises BadInput that names the line."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadInput(f"{_place(data, where)}: this is no JSON: {str(error) or 'nested too deeply'}") from None


def _place(data: bytes, where: str) -> str:
    """Where, with the line at which it stops being JSON, if there are several."""
    try:
        json.loads(data)
    except json.JSONDecodeError as error:
        return f"{where} line {error.lineno}" if b"\n" in data.strip() else where
    except (ValueError, RecursionError):
        pass
    return where


def _value(data: bytes, kind: type[V], where: str) -> V:
    """A value of that kind; the schema is looked at first, as another one may have other keys."""
    found = _parsed(data, where)
    schema = found.get("schema") if isinstance(found, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise BadInput(f"{where}: schema {schema}, but this napctl reads {SCHEMA}; use the napctl that made it")
    try:
        return from_json(data, kind)
    except ValueError as error:
        raise BadInput(f"{where}: malformed: {error}") from None


# Writing


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of the operating system as one line."""
    try:
        yield
    except PermissionError:
        raise NotPermitted(f"{path}: not writable") from None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except OSError as error:
        raise RolledBack(f"{path}: not written: {error.strerror}; what was there is kept") from None
    except ValueError as error:  # a NUL in the name
        raise BadInput(f"{path}: {error}") from None


def _append(file: int, line: bytes) -> None:
    """After the last whole line. On failure the file is as long as before."""
    end = _end_of_lines(file)
    try:
        os.ftruncate(file, end)
        written = 0
        while written < len(line):
            written += os.pwrite(file, line[written:], end + written)
        os.fsync(file)
    except BaseException:
        with suppress(OSError):
            os.ftruncate(file, end)
        raise


def _end_of_lines(file: int) -> int:
    """Offset behind the last line's end: what follows is half a line, of a crash."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - 65536)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _replace(path: Path, data: bytes) -> None:
    """The whole file or the former one, also after a crash."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        with suppress(FileNotFoundError):  # of a crash
            fresh.unlink()
        with fresh.open("xb") as file:
            os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o755)  # for nobody else to write
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _opened_directory(path: Path | str, holder: int | None, stack: ExitStack) -> int:
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=holder)
    stack.callback(os.close, opened)
    return opened


def _hand_over_file(name: str, holder: int, uid: int, gid: int) -> None:
    """If it is a regular file of ours with no other name: not what a link leads to."""
    with ExitStack() as stack:
        try:
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=holder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                return
            raise
        stack.callback(os.close, opened)
        found = os.fstat(opened)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid():
            os.fchown(opened, uid, gid)


def _pretty(data: bytes) -> bytes:
    """In lines, for people and for `diff`."""
    return msgspec.json.format(data, indent=2) + b"\n"


def _finite(cell: Cell) -> Cell:
    wrong = tuple(name for name, value in cell.metrics.items() if not isfinite(value))
    if not wrong:
        return cell
    figures = {name: value for name, value in cell.metrics.items() if isfinite(value)}
    sentences = tuple(f"{name} came out as no number, and was left out" for name in wrong)
    return replace(cell, metrics=figures, warnings=cell.warnings + sentences)


def write_bytes(path: Path | str, data: bytes) -> None:
    """A file that a report is written to: whole, or as it was. Raises NotPermitted, RolledBack, BadInput."""
    with _writing(Path(path)):
        target = Path(path)
        if target.is_dir():
            raise BadInput(f"{path}: this is a directory")
        if target.exists() and not target.is_file():  # a pipe, a terminal
            target.write_bytes(data)
        else:
            _replace(target.resolve(), data)  # what a symbolic link leads to, not the link
