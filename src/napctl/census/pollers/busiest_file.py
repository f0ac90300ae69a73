"""What was seen of a poller in former windows, kept in the state directory: a small file for each program."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from napctl.census.pollers.work_estimate import RestAndWork
from napctl.census.pollers.work_share import Busiest
from napctl.kernel.executable import fingerprint
from napctl.kernel.trusted_paths import read_own, refuse_foreign_directory, write_whole
from napctl.model.errors import BadInput
from napctl.model.value import Value, from_json, to_json

__all__ = ["BusiestFiles", "identity"]


VERSION = 1
MOST_FILES = 200
MOST_THREADS = 256


class Kept(Value, frozen=True, kw_only=True):
    """The file's content."""

    version: int
    identity: str
    """Of the program, its arguments, its devices and this kernel: what another one costs says nothing here."""
    busiest: Busiest | None = None
    learned: dict[str, RestAndWork] = msgspec.field(default_factory=dict)
    """What it executes at rest and at work, by the thread's name and CPU."""


class BusiestFiles:
    """What is kept. Where it cannot be read or written, nothing is: a figure more or less is no reason to fail."""

    def __init__(self, state_directory: Path):
        self._directory = state_directory / "pollers"

    def kept(self, identity: str) -> Busiest | None:
        """The busiest window of that program; None: nothing, or nothing that may be believed."""
        return self._read(identity).busiest

    def keep(self, identity: str, busiest: Busiest) -> None:
        """In the place of what was kept."""
        self._write(replace(self._read(identity), busiest=busiest))

    def learned(self, identity: str) -> Mapping[str, RestAndWork]:
        """Of its threads; empty: nothing, or nothing that may be believed."""
        return self._read(identity).learned

    def learn(self, identity: str, learned: Mapping[str, RestAndWork]) -> None:
        """In the place of what was kept of these threads."""
        kept = self._read(identity)
        if len(kept.learned.keys() | learned.keys()) <= MOST_THREADS:
            self._write(replace(kept, learned={**kept.learned, **learned}))

    def _read(self, identity: str) -> Kept:
        nothing = Kept(version=VERSION, identity=identity)
        try:
            refuse_foreign_directory(self._directory)
            found = from_json(read_own(self._path(identity)), Kept)
        except (OSError, ValueError, BadInput):
            return nothing
        sound = found.busiest is None or found.busiest.cpu_ns_per_packet > 0
        return found if sound and found.version == VERSION and found.identity == identity else nothing

    def _write(self, kept: Kept) -> None:
        with suppress(OSError, BadInput):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            refuse_foreign_directory(self._directory)
            write_whole(self._path(kept.identity), to_json(kept))
            for _, old in sorted((each.lstat().st_mtime_ns, each) for each in self._directory.iterdir())[:-MOST_FILES]:
                old.unlink(missing_ok=True)

    def _path(self, identity: str) -> Path:
        return self._directory / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"


def identity(pid: int, name: str, devices: tuple[str, ...]) -> str:
    """Of a poller that runs now."""
    return f"{name}, {fingerprint(pid, ' '.join(devices))}"
