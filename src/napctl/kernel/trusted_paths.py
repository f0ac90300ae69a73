"""Directories and files that only this user, or root, can have written: what napctl believes, and does, as root."""

import errno
import os
import pwd
import stat
from pathlib import Path

from napctl.model.errors import BadInput

__all__ = ["read_own", "refuse_foreign_directory", "refuse_foreign_file", "refuse_link", "write_whole"]


OTHERS = stat.S_IWGRP | stat.S_IWOTH
"""An access control list shows in the group's bits (acl(5))."""


def refuse_foreign_directory(path: Path) -> None:
    """Raises BadInput if another user owns a directory, or may write there; it may be a symbolic link of root's.

    One that is not there yet is nobody's. Raises OSError.
    """
    try:
        link = path.lstat()
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a NUL in its name
        return
    if stat.S_ISLNK(link.st_mode):
        _refuse_foreign_owner(path, link, "the symbolic link")
    _refuse_foreign(path, found)


def refuse_foreign_file(path: Path) -> None:
    """The same for a file in such a directory, which must not be a symbolic link."""
    refuse_link(path)
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return
    _refuse_foreign(path, found)


def refuse_link(path: Path) -> None:
    """Raises BadInput for a symbolic link: whoever made it may have had another file in mind."""
    if path.is_symlink():
        raise BadInput(f"{path}: a symbolic link, which napctl does not follow here")


def read_own(path: Path) -> bytes:
    """The content of a file that refuse_foreign_file() lets pass. Raises BadInput, OSError."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            refuse_link(path)
        raise
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise BadInput(f"{path}: no regular file")
        _refuse_foreign(path, found)
        return opened.read()


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """In the place of what is there: after a crash at any moment it is the old one or the new one. Raises OSError."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(file, "wb") as opened:
            os.fchmod(file, mode)  # whatever the umask is
            opened.write(content)
            opened.flush()
            os.fsync(file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _refuse_foreign(path: Path, found: os.stat_result) -> None:
    _refuse_foreign_owner(path, found, "it")
    if found.st_mode & OTHERS:
        mode = stat.filemode(found.st_mode)
        raise BadInput(f"{path}: others may write to it ({mode}), and napctl acts on what stands there; chmod go-w")


def _refuse_foreign_owner(path: Path, found: os.stat_result, what: str) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise BadInput(
            f"{path}: {what} belongs to {_name(found.st_uid)}, and napctl acts on what stands there; use your own"
        )


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
