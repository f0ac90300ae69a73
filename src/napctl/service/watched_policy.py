"""The policy that is in force, and whether its files have become others.

The last one that could be read is kept beside the journal, so that a service that starts while somebody is writing at
the files does not take back what it finds.
"""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from napctl.kernel.trusted_paths import read_own, write_whole
from napctl.model.errors import NapctlError
from napctl.model.policy import Origin, Policy
from napctl.model.value import from_json, to_json
from napctl.service.policy_file import drop_ins, read_policy

__all__ = ["WatchedPolicy"]


FILE_SECONDS = 2.0
"""Between two looks at the files."""
LATER_SECONDS = 0.25
"""So much later it may be, if something else wakes us up meanwhile, as mostly does."""
KEPT = "policy.json"
NOWHERE = Origin(file="", line=0)


class WatchedPolicy:
    """Of one file and its drop-ins. Raises BadInput where it cannot be read, and never could be."""

    def __init__(self, path: Path, directory: Path):
        self._path, self._kept = path, directory / KEPT
        self._stamps = self._seen = _stamps(path)
        self.error = ""
        """Why the files are another one now, which cannot be read; empty: they are not."""
        self._due_at = 0.0
        try:
            self.now = read_policy(path)
            """The last that could be read."""
        except NapctlError as error:
            if (kept := self._kept_policy()) is None:
                raise
            self.now, self.error = kept, str(error)

    def _kept_policy(self) -> Policy | None:
        with suppress(NapctlError, OSError, ValueError):
            return from_json(read_own(self._kept), Policy)
        return None

    def keep(self) -> None:
        """For the next process of the service."""
        with suppress(OSError):  # a full disk: then the one before is kept
            write_whole(self._kept, to_json(self.now))

    @property
    def digest(self) -> str:
        """Of what it asks for, wherever that stands."""
        entries = ("attach", "devices")
        bare: dict[str, Any] = {
            name: tuple(replace(each, origin=NOWHERE) for each in getattr(self.now, name)) for name in entries
        }
        if self.now.protect is not None:
            bare["protect"] = replace(self.now.protect, origin=NOWHERE)
        return hashlib.sha256(to_json(replace(self.now, **bare))).hexdigest()[:16]

    def seconds_left(self, now: float) -> float:
        """Until have_files_changed() is to be asked, unless it is before."""
        return max(0.0, self._due_at + LATER_SECONDS - now)

    def have_files_changed(self, now: float) -> bool:
        """Since they were last read. Whoever writes at them has to be done: they are to be the same at two looks."""
        if now < self._due_at:
            return False
        self._due_at = now + FILE_SECONDS
        before, self._seen = self._seen, _stamps(self._path)
        return self._seen == before != self._stamps

    def read(self) -> bool:
        """Whether it asks for something else now. What cannot be read changes nothing, and is the `error`."""
        before, self._stamps = self.digest, _stamps(self._path)
        self._seen = self._stamps
        try:
            self.now = read_policy(self._path)
        except NapctlError as error:
            self.error = str(error)
            return False
        self.error = ""
        self.keep()
        return self.digest != before


def _stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells whether a file is another one than before."""
    found = []
    with suppress(NapctlError, OSError):
        for each in (path, *drop_ins(path)):
            stat = each.stat()
            found.append((str(each), stat.st_mtime_ns, stat.st_ino))
    return tuple(found)
