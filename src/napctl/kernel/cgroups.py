"""Control groups of version 2, as they are mounted, and the processes in them (cgroups(7))."""

import errno
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napctl.kernel.processes import PROC

__all__ = ["Hierarchy", "directory_of", "find", "group_of", "hierarchy", "path_of", "processes_in"]


@dataclass(frozen=True)
class Hierarchy:
    """As it is mounted. `root` is the control group that its mount point shows: "/" unless it is a bind mount."""

    mount: Path
    root: str

    def directory(self, path: str) -> Path | None:
        """Where a control group's directory would be; None if this mount cannot show it."""
        inside = posixpath.relpath(path, self.root)
        return None if inside.split("/")[0] == ".." else self.mount / inside

    def path(self, directory: Path) -> str:
        """The control group of a directory at or below the mount point."""
        return posixpath.normpath(posixpath.join(self.root, directory.relative_to(self.mount)))


def hierarchy(mountinfo: str | None = None) -> Hierarchy | None:
    """The one there is, by the mount that shows most of it (/proc/self/mountinfo); None: it is not mounted here.

    `mountinfo`: the text to take instead.
    """
    text = (PROC / "self/mountinfo").read_text(errors="surrogateescape") if mountinfo is None else mountinfo
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            root, mount = (_plain(field) for field in before.split(" ")[3:5])
            found.append(Hierarchy(Path(mount), root))
    return min(found, key=lambda each: len(each.root), default=None)


def _plain(field: str) -> str:
    """Blanks and the like are written as \\040 in mountinfo (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def directory_of(path: str | Path) -> Path | None:
    """Directory of a control group: of a path as in /proc/PID/cgroup, or the directory itself if it is one at or below
    the mount point. None if there is none."""
    there = hierarchy()
    if there is None:
        return None
    text = posixpath.normpath("/" + str(path).lstrip("/"))
    directory = Path(text) if Path(text).is_relative_to(there.mount) else there.directory(text)
    return directory if directory is not None and directory.is_dir() else None


def processes_in(path: str | Path) -> list[int]:
    """Pids of the processes in a control group and in those below it, in order; for `path` see directory_of().

    Those of a PID namespace that is not below ours are not seen. Raises FileNotFoundError if there is no such group.
    """
    top = directory_of(path)
    if top is None:
        raise FileNotFoundError(errno.ENOENT, "no such control group", str(path))
    found: set[int] = set()
    for directory in _walk(top):
        # EOPNOTSUPP in a threaded group, whose processes its domain lists; ENODEV if it was removed meanwhile.
        with suppress(OSError):
            found.update(map(int, (directory / "cgroup.procs").read_text().split()))
    return sorted(found - {0})  # 0: one whose pid cannot be told in this PID namespace


def find(predicate: Callable[[str], bool]) -> list[Path]:
    """Directories of the control groups whose own name (without what is above) `predicate` accepts, in order."""
    there = hierarchy()
    return (
        [] if there is None else [each for each in _walk(there.mount) if each != there.mount and predicate(each.name)]
    )


def path_of(directory: Path) -> str:
    """The control group, as in /proc/PID/cgroup, of a directory that find() gave."""
    there = hierarchy()
    return there.path(directory) if there is not None and directory.is_relative_to(there.mount) else str(directory)


def group_of(pid: int) -> str | None:
    """The control group of a process, as in /proc/PID/cgroup; None if it has gone, or is in none of version 2."""
    try:
        lines = (PROC / str(pid) / "cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)


def _walk(top: Path) -> Iterator[Path]:
    """A directory and all below it. What cannot be read, or goes meanwhile, is passed over."""
    yield top
    with suppress(OSError):
        if os.stat(top).st_nlink == 2:  # noqa: PTH116 - thousands; none below: kernfs counts (fs/kernfs/inode.c)
            return
    with suppress(OSError), os.scandir(top) as entries:
        below = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        for name in below:
            yield from _walk(top / name)
