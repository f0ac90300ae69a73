"""Control groups of both versions, as they are mounted, and the processes in them (cgroups(7)).

On a hybrid system both versions are mounted and systemd keeps the same tree in several hierarchies: cgroup2 and the
v1 hierarchy name=systemd. Container runtimes may use v1 controllers alone. So three hierarchies are looked at, at most.
"""

import errno
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napctl.kernel.processes import PROC

SYSTEMD = "name=systemd"
TELLING = ("memory", "pids", "cpu", "cpuacct", "devices", "freezer", "blkio")
"""Controllers of version 1 in which container runtimes put what they start; the first that is mounted is looked at."""


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy. `root` is the control group that its mount point shows: "/" unless it is a bind mount."""

    version: int
    """1 or 2."""
    mount: Path
    root: str
    controllers: frozenset[str]
    """Of version 1, with "name=systemd" for that one; empty for version 2."""

    def directory(self, path: str) -> Path | None:
        """Where a control group's directory would be; None if this mount cannot show it."""
        inside = posixpath.relpath(path, self.root)
        return None if inside.split("/")[0] == ".." else self.mount / inside

    def path(self, directory: Path) -> str:
        """The control group of a directory at or below the mount point."""
        return posixpath.normpath(posixpath.join(self.root, directory.relative_to(self.mount)))


def hierarchies(mountinfo: str | None = None) -> list[Hierarchy]:
    """Those that are mounted here (/proc/self/mountinfo), each once, version 2 first. None is mounted: an empty list.

    `mountinfo`: the text to take instead.
    """
    text = (PROC / "self/mountinfo").read_text(errors="surrogateescape") if mountinfo is None else mountinfo
    found: dict[frozenset[str] | None, Hierarchy] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mount = (_plain(field) for field in before.split(" ")[3:5])
        named = frozenset(options.split(",")) - {"rw", "ro", "xattr", "clone_children", "noprefix"}
        version = 2 if kind == "cgroup2" else 1
        controllers = frozenset() if version == 2 else named
        key = None if version == 2 else controllers
        known = found.get(key)
        if known is None or len(root) < len(known.root):  # several mounts of it: the one that shows most
            found[key] = Hierarchy(version=version, mount=Path(mount), root=root, controllers=controllers)
    return sorted(found.values(), key=lambda each: (-each.version, str(each.mount)))


def _plain(field: str) -> str:
    """Blanks and the like are written as \\040 in mountinfo (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def telling(among: list[Hierarchy] | None = None) -> list[Hierarchy]:
    """Those in which units and containers can be found: version 2, name=systemd, and one controller of version 1."""
    mounted = hierarchies() if among is None else among
    found = [each for each in mounted if each.version == 2]
    found += [each for each in mounted if SYSTEMD in each.controllers]
    for controller in TELLING:
        holding = [each for each in mounted if controller in each.controllers]
        if holding:
            return found + holding
    return found


def directories(path: str | Path) -> list[Path]:
    """Directories of one control group: those of a path as in /proc/PID/cgroup in each hierarchy that has it, or the
    directory itself if it is one at or below a mounted hierarchy. Empty if there is none."""
    text = posixpath.normpath("/" + str(path).lstrip("/"))
    for each in hierarchies():
        if Path(text).is_relative_to(each.mount):
            return [Path(text)] if Path(text).is_dir() else []
    found = (each.directory(text) for each in telling())
    return [directory for directory in found if directory is not None and directory.is_dir()]


def processes_in(path: str | Path) -> list[int]:
    """Pids of the processes in a control group and in those below it, in order; for `path` see directories().

    Those of a PID namespace that is not below ours are not seen. Raises FileNotFoundError if there is no such group.
    """
    where = directories(path)
    if not where:
        raise FileNotFoundError(errno.ENOENT, "no such control group", str(path))
    return sorted({pid for directory in where for pid in _pids_at_or_below(directory)})


def _pids_at_or_below(top: Path) -> set[int]:
    found: set[int] = set()
    for directory in _walk(top):
        # EOPNOTSUPP in a threaded group, whose processes its domain lists; ENODEV if it was removed meanwhile.
        with suppress(OSError):
            found.update(map(int, (directory / "cgroup.procs").read_text().split()))
    return found - {0}  # 0: one whose pid cannot be told in this PID namespace


def find(predicate: Callable[[str], bool]) -> list[Path]:
    """Directories of the control groups whose own name (without what is above) `predicate` accepts, in order.

    A group that several hierarchies have is given once: where a process is in it, and in version 2 if in none.
    """
    found: dict[str, list[Path]] = {}
    for hierarchy in telling():
        for directory in _walk(hierarchy.mount):
            if directory != hierarchy.mount and predicate(directory.name):
                found.setdefault(hierarchy.path(directory), []).append(directory)
    return [_populated(found[path]) for path in sorted(found)]


def _populated(same: list[Path]) -> Path:
    """The first in which a process is; else the first."""
    return same[0] if len(same) == 1 else next((each for each in same if _pids_at_or_below(each)), same[0])


def path_of(directory: Path) -> str:
    """The control group, as in /proc/PID/cgroup, of a directory that find() gave."""
    for each in hierarchies():
        if directory.is_relative_to(each.mount):
            return each.path(directory)
    return str(directory)


def cgroup_of(pid: int) -> str:
    """The control group of a process: of version 2, or of version 1 where that says more than "/".

    Raises FileNotFoundError or ProcessLookupError if the process is gone.
    """
    lines = (PROC / str(pid) / "cgroup").read_text(errors="surrogateescape").splitlines()
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    held = {controller: path for controllers, path in paths.items() for controller in controllers.split(",")}
    for controller in ("", SYSTEMD, *TELLING):
        if held.get(controller, "/") != "/":
            return held[controller]
    return "/"


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
