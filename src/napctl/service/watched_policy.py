"""The policy that is in force, and whether its files have become others."""

import hashlib
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from napctl.model.errors import NapctlError
from napctl.model.policy import Origin
from napctl.model.value import to_json
from napctl.service.policy_file import drop_ins, read_policy

__all__ = ["WatchedPolicy"]


FILE_SECONDS = 2.0
"""Between two looks at the files."""
NOWHERE = Origin(file="", line=0)


class WatchedPolicy:
    """Of one file and its drop-ins. Raises BadInput where it cannot be read at first."""

    def __init__(self, path: Path):
        self._path = path
        self._stamps = _stamps(path)
        self.now = read_policy(path)
        """The last that could be read."""
        self.error = ""
        """Why the files are another one now, which cannot be read; empty: they are not."""
        self._due_at = 0.0

    @property
    def digest(self) -> str:
        """Of what it asks for, wherever that stands."""
        entries = ("attach", "devices")
        bare = {name: tuple(replace(each, origin=NOWHERE) for each in getattr(self.now, name)) for name in entries}
        return hashlib.sha256(to_json(replace(self.now, **bare))).hexdigest()[:16]

    def seconds_left(self, now: float) -> float:
        """Until have_files_changed() is to be asked."""
        return max(0.0, self._due_at - now)

    def have_files_changed(self, now: float) -> bool:
        """Since they were last read, or this was last asked."""
        if now < self._due_at:
            return False
        self._due_at = now + FILE_SECONDS
        before, self._stamps = self._stamps, _stamps(self._path)
        return before != self._stamps

    def read(self) -> bool:
        """Whether it asks for something else now. What cannot be read changes nothing, and is the `error`."""
        before, self._stamps = self.digest, _stamps(self._path)
        try:
            self.now = read_policy(self._path)
        except NapctlError as error:
            self.error = str(error)
            return False
        self.error = ""
        return self.digest != before


def _stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells whether a file is another one than before."""
    found = []
    with suppress(NapctlError, OSError):
        for each in (path, *drop_ins(path)):
            stat = each.stat()
            found.append((str(each), stat.st_mtime_ns, stat.st_ino))
    return tuple(found)
