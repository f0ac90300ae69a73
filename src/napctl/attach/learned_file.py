"""What adapting has learned of a server, kept in the state directory: a file for each server, kernel and driver."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from napctl.adapt.learned import Learned, learned_before
from napctl.kernel.executable import fingerprint
from napctl.kernel.trusted_paths import read_own, refuse_foreign_directory, write_whole
from napctl.model.errors import BadInput
from napctl.model.value import from_json, to_json

__all__ = ["identity_of", "keep_learned", "kept_learned"]


MOST_FILES = 200
"""Each new version of a server or kernel makes one; the oldest go."""


def identity_of(pid: int, name: str, driver: str) -> str:
    """Of the server that runs there, this kernel and a driver: what was learned under another one says nothing here."""
    return f"{name}, {driver}, {os.uname().release}, {fingerprint(pid, driver)}"


def kept_learned(directory: Path, identity: str) -> tuple[Learned, str]:
    """What is kept of that identity, else nothing; and a line if there is something that cannot be used."""
    path = _path(directory, identity)
    try:
        refuse_foreign_directory(path.parent)
        kept = from_json(read_own(path), Learned)
    except FileNotFoundError:
        return Learned(identity=identity), ""
    except BadInput as error:
        return Learned(identity=identity), f"what was learned before is not used: {error}"
    except (OSError, ValueError) as error:
        return Learned(identity=identity), f"{path}: what was learned before cannot be read ({error}); it begins anew"
    return learned_before(kept, identity), ""


def keep_learned(directory: Path, learned: Learned) -> None:
    """In the place of what was kept. Raises OSError, and BadInput where others may write."""
    path = _path(directory, learned.identity)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_foreign_directory(path.parent)
    write_whole(path, to_json(learned))
    _forget(path.parent)


def _forget(directory: Path) -> None:
    made = []
    for each in directory.iterdir():
        with suppress(FileNotFoundError):  # another napctl forgets as well
            made.append((each.lstat().st_mtime_ns, each))
    for _, each in sorted(made)[:-MOST_FILES]:
        each.unlink(missing_ok=True)


def _path(directory: Path, identity: str) -> Path:
    return directory / "learned" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"
