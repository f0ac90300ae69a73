"""Names and images of containers, as their runtimes write them into files: none of these is asked, or changed.

Others may have written what stands there: it is compared, and never shown.
"""

import errno
import os
import pwd
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from napctl.kernel.syscalls import open_beneath
from napctl.model.text import printable

__all__ = ["Container", "Containers", "is_image"]


ROOT = Path("/")
DOCKER = ("var/lib/docker", ".local/share/docker")
"""Of the system, and of a user below his home."""
STORAGE = ("var/lib/containers/storage", ".local/share/containers/storage")
"""Of podman and CRI-O."""
DRIVERS = ("overlay", "overlay2", "vfs", "btrfs", "zfs", "aufs")
"""Each has a directory of containers in it (drivers/ in containers/storage)."""
CONTAINERD = ("run/containerd", "run/k3s/containerd")
MOST_BYTES = 16 << 20
"""Of a file: a list of thousands of containers is no longer."""
MOST_USER_BYTES = 4 << 20
"""Of a user's files, of each, and of all that are read at once."""
MOST_KEPT = 4096
"""Files of which it is kept what they say."""
MOST_NAMES, LONGEST = 16, 1024
"""Names of a container that are kept, and characters of one."""
HOME_SECONDS = 300.0
"""As long the answer where a user's home is counts."""
FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
IN_A_HOME = {
    errno.ELOOP: "a symbolic link, which is not followed in a user's home",
    errno.EXDEV: "on another file system, which is not entered in a user's home",
}
UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
"""What decoding raises."""
IMAGE_DEFAULTS = ("docker.io/library/", "docker.io/", "index.docker.io/", "localhost/")
"""What runtimes put before an image's name if none is given."""


@dataclass(frozen=True)
class Container:
    """One container. A pod's is called NAME, POD/NAME and NAMESPACE/POD/NAME."""

    id: str
    names: tuple[str, ...]
    image: str
    user: int = 0
    """Whose files say so; 0: the system's."""


@dataclass(frozen=True)
class Containers:
    """Those of some ids, and what could not be read of them, in words."""

    found: tuple[Container, ...]
    unreadable: tuple[str, ...]
    forbidden: bool
    """Something could not be read for lack of a right."""

    @classmethod
    def of(cls, ids: Mapping[str, int], *, users: bool = True) -> "Containers":
        """`ids`: with the user to whom each one's control group belongs. What the system's files do not have is looked
        for in his home as well, if `users` says so."""
        readers = [_Reader()] if ids else []
        found = {each.id: each for reader in readers for each in reader.all_of(ids)}
        missing = {each: user for each, user in ids.items() if each not in found and user} if users else {}
        for user in sorted(set(missing.values())):
            readers.append(_Reader(user))
            mine = [each for each, owner in missing.items() if owner == user]
            found |= {each.id: each for each in readers[-1].all_of(mine)}
        return cls(
            tuple(found[each] for each in ids if each in found),
            tuple(line for reader in readers for line in reader.unreadable),
            forbidden=any(reader.forbidden for reader in readers),
        )

    def called(self, name: str) -> frozenset[str]:
        """Ids of those with that name. Where the system has one, users' containers with the name are not meant."""
        return self._first([each for each in self.found if name in each.names])

    def of_image(self, wanted: str) -> frozenset[str]:
        """Ids of those made of that image; the same of users'."""
        return self._first([each for each in self.found if is_image(wanted, each.image)])

    def _first(self, having: list[Container]) -> frozenset[str]:
        systems = [each for each in having if not each.user]
        return frozenset(each.id for each in systems or having)


def is_image(wanted: str, image: str) -> bool:
    """Whether that is meant: without a tag any tag is, without a registry and "library" the usual ones."""
    if not image or wanted == image:
        return bool(image)
    name, tag, digest = _parts(wanted)
    its_name, its_tag, its_digest = _parts(image)
    its_tag = its_tag or ("" if its_digest else "latest")
    return name == its_name and digest in ("", its_digest) and tag in ("", its_tag)


def _parts(image: str) -> tuple[str, str, str]:
    """Name, tag and digest; what is not given is empty."""
    rest, _, digest = image.partition("@")
    before, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    name = f"{before}{slash}{last}"
    return next((name.removeprefix(each) for each in IMAGE_DEFAULTS if name.startswith(each)), name), tag, digest


# What the files hold, of which most is left out.


class _DockerConfig(msgspec.Struct):
    image: str = msgspec.field(name="Image", default="")


class _Docker(msgspec.Struct):
    """config.v2.json (container/container.go in moby)."""

    name: str = msgspec.field(name="Name", default="")
    config: _DockerConfig = msgspec.field(name="Config", default_factory=_DockerConfig)


class _Stored(msgspec.Struct):
    """One of containers.json (containers.go in containers/storage)."""

    id: str
    names: list[str] | None = None
    metadata: str = ""


class _Metadata(msgspec.Struct):
    """What podman and CRI-O keep there (RuntimeContainerMetadata)."""

    image: str = msgspec.field(name="image-name", default="")


class _Bundle(msgspec.Struct):
    """config.json of the OCI runtime specification."""

    annotations: dict[str, str] | None = None


CRI = "io.kubernetes.cri."
"""Before the annotations of containerd's CRI (pkg/cri/annotations)."""


@dataclass(frozen=True)
class _Said:
    """What a file says of one container."""

    names: tuple[str, ...]
    image: str


Found = Mapping[str, _Said]
"""By id."""
Parse = Callable[[bytes, Collection[str]], Found]
"""What a file's content says of those ids. Raises what msgspec raises, and ValueError."""


def _of_docker(content: bytes, ids: Collection[str]) -> Found:
    found = msgspec.json.decode(content, type=_Docker)
    return dict.fromkeys(ids, _Said(_names(found.name.removeprefix("/")), _short(found.config.image)))


def _of_storage(content: bytes, ids: Collection[str]) -> Found:
    found = (each for each in msgspec.json.decode(content, type=list[_Stored]) if each.id in ids)
    return {each.id: _Said(_names(*each.names or ()), _short(_stored_image(each))) for each in found}


def _of_bundle(content: bytes, ids: Collection[str]) -> Found:
    said = msgspec.json.decode(content, type=_Bundle).annotations or {}
    name, pod, around = (said.get(CRI + key, "") for key in ("container-name", "sandbox-name", "sandbox-namespace"))
    if not name:
        return {}
    names = _names(name, pod and f"{pod}/{name}", pod and around and f"{around}/{pod}/{name}")
    return dict.fromkeys(ids, _Said(names, _short(said.get(f"{CRI}image-name", ""))))


def _names(*names: str) -> tuple[str, ...]:
    return tuple(each for each in names[:MOST_NAMES] if _short(each))


def _short(text: str) -> str:
    """What is longer cannot be asked for."""
    return text if len(text) <= LONGEST else ""


def _stored_image(stored: _Stored) -> str:
    try:
        return msgspec.json.decode(stored.metadata, type=_Metadata).image
    except UNREADABLE:
        return ""


# Reading them.


@dataclass(frozen=True)
class _Kept:
    """Of a file as it was read last, what it says of the ids that were asked for then; or why it says nothing."""

    identity: tuple[int, ...]
    ids: frozenset[str]
    found: Found
    why: str = ""


_kept: OrderedDict[Path, _Kept] = OrderedDict()
"""The newest of each file; last those that were read last."""
_homes: dict[int, tuple[float, str | None]] = {}
"""By user: when it was asked for, and the home."""


class _Reader:
    """The files of the system, or of one user: below his home nothing is followed, and only what is his is read."""

    def __init__(self, user: int = 0):
        self.unreadable: list[str] = []
        self.forbidden = False
        self._user = user
        self._home: Path | None = None
        self._bytes_left = MOST_USER_BYTES if user else None

    def all_of(self, ids: Collection[str]) -> Iterator[Container]:
        """What is known of these."""
        if not self._user:
            yield from self._docker(ROOT / DOCKER[0], ids)
            yield from self._stored(ROOT / STORAGE[0], ids)
            for place in CONTAINERD:
                yield from self._bundles(ROOT / place / "io.containerd.runtime.v2.task", ids)
        elif (home := _home_of(self._user)) is not None:
            self._home = ROOT / home.lstrip("/")
            yield from self._docker(self._home / DOCKER[1], ids)
            yield from self._stored(self._home / STORAGE[1], ids)

    def _docker(self, root: Path, ids: Iterable[str]) -> Iterator[Container]:
        for each in ids:
            yield from self._read(root / "containers" / each / "config.v2.json", _of_docker, (each,))

    def _stored(self, root: Path, ids: Collection[str]) -> Iterator[Container]:
        for driver in DRIVERS:
            for name in ("containers.json", "volatile-containers.json"):
                yield from self._read(root / f"{driver}-containers" / name, _of_storage, ids)

    def _bundles(self, root: Path, ids: Iterable[str]) -> Iterator[Container]:
        for namespace in self._listed(root):
            for each in ids:
                yield from self._read(namespace / each / "config.json", _of_bundle, (each,))

    def _listed(self, directory: Path) -> list[Path]:
        """What is in a directory, if there is one."""
        try:
            return sorted(directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._lacks(directory, error)
            return []

    def _read(self, path: Path, parse: Parse, ids: Collection[str]) -> Iterator[Container]:
        """What a file says; nothing if it is not there, or holds something else."""
        try:
            file = _opened(path, self._home)
        except FileNotFoundError:
            return
        except OSError as error:
            if self._home is not None or not isinstance(error, NotADirectoryError):
                self._lacks(path, error)
            return
        with os.fdopen(file, "rb") as opened:
            kept = self._content(path, opened, parse, frozenset(ids))
        if kept.why:
            self._lacks(path, kept.why)
        for each in ids:
            if (said := kept.found.get(each)) is not None:
                yield Container(each, said.names, said.image, self._user)

    def _content(self, path: Path, file: BinaryIO, parse: Parse, ids: frozenset[str]) -> _Kept:
        """Of an open file. While it is the same it is not read again."""
        seen = os.fstat(file.fileno())
        identity = seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size
        kept = _kept.get(path)
        if kept is None or kept.identity != identity or not ids <= kept.ids:
            most = MOST_BYTES if self._bytes_left is None else MOST_USER_BYTES
            mine = not self._user or seen.st_uid == self._user
            if not (stat.S_ISREG(seen.st_mode) and mine and seen.st_size <= most):
                kept = _Kept(identity, ids, {}, "it is no file of a runtime")
            elif self._bytes_left is not None and seen.st_size > self._bytes_left:
                return _Kept(identity, ids, {}, "left for the next time: this user's files are long")
            else:
                if self._bytes_left is not None:
                    self._bytes_left -= seen.st_size
                kept = _parsed(file, identity, parse, ids, most)
        _kept[path] = kept
        _kept.move_to_end(path)
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
        return kept

    def _lacks(self, path: Path, why: OSError | str) -> None:
        self.forbidden |= isinstance(why, PermissionError)
        if isinstance(why, OSError):
            in_a_home = IN_A_HOME.get(why.errno or 0) if self._home is not None else None
            why = in_a_home or why.strerror or "cannot be read"
        where = f"files of user {self._user}" if self._user else path  # nobody is to read what a user has called them
        self.unreadable.append(printable(f"{where}: {why}"))


def _parsed(file: BinaryIO, identity: tuple[int, ...], parse: Parse, ids: frozenset[str], most: int) -> _Kept:
    try:
        return _Kept(identity, ids, parse(file.read(most), ids))
    except OSError as error:
        return _Kept(identity, ids, {}, error.strerror or "cannot be read")
    except UNREADABLE:
        return _Kept(identity, ids, {}, "it does not read as its runtime writes it")


def _opened(path: Path, home: Path | None) -> int:
    """For reading. Below a user's home no symbolic link is followed, and no other file system entered: he could have
    another's file read, or let the reader wait for ever. Raises OSError."""
    if home is None:
        return os.open(path, FLAGS)
    directory = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_beneath(directory, str(path.relative_to(home)), FLAGS)
    finally:
        os.close(directory)


def _home_of(user: int) -> str | None:
    """Of a user; None: nobody has that number. It may be asked for over the network, so the answer is kept a while."""
    asked_at, home = _homes.get(user, (float("-inf"), None))
    if (now := time.monotonic()) - asked_at >= HOME_SECONDS:
        if len(_homes) >= MOST_KEPT:
            _homes.clear()
        try:
            home = pwd.getpwuid(user).pw_dir
        except KeyError:
            home = None
        _homes[user] = now, home
    return home
