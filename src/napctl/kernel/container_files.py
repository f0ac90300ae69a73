"""Names and images of containers, as their runtimes write them into files: none of these is asked, or changed.

Others may have written what stands there: it is compared, and never shown.
"""

import os
import pwd
import stat
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

__all__ = ["Container", "Containers", "is_image"]


ROOT = Path("/")
DOCKER = ("var/lib/docker", ".local/share/docker")
"""Of the system, and of a user below his home."""
STORAGE = ("var/lib/containers/storage", ".local/share/containers/storage")
"""Of podman and CRI-O; each driver has a directory of containers in it."""
CONTAINERD = ("run/containerd", "run/k3s/containerd")
MOST_BYTES = 16 << 20
"""Of a file: a list of thousands of containers is no longer."""
MOST_KEPT = 4096
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
    def of(cls, ids: Mapping[str, int]) -> "Containers":
        """`ids`: with the user to whom each one's control group belongs, in whose home it is looked for as well."""
        reader = _Reader()
        if not ids:
            return cls((), (), forbidden=False)
        found = {each.id: each for each in reader.of_system(ids)}
        for user in {ids[each] for each in ids.keys() - found.keys()} - {0}:
            mine = [each for each in ids if ids[each] == user and each not in found]
            found |= {each.id: each for each in reader.of_user(mine, user)}
        return cls(
            tuple(found[each] for each in ids if each in found), tuple(reader.unreadable), forbidden=reader.forbidden
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
Read = TypeVar("Read")


class _Reader:
    def __init__(self) -> None:
        self.unreadable: list[str] = []
        self.forbidden = False

    def of_system(self, ids: Iterable[str]) -> Iterator[Container]:
        yield from self._docker(ROOT / DOCKER[0], ids, 0)
        yield from self._stored(ROOT / STORAGE[0], set(ids), 0)
        for place in CONTAINERD:
            yield from self._bundles(ROOT / place / "io.containerd.runtime.v2.task", ids)

    def of_user(self, ids: Iterable[str], user: int) -> Iterator[Container]:
        with suppress(KeyError):
            home = ROOT / pwd.getpwuid(user).pw_dir.lstrip("/")
            yield from self._docker(home / DOCKER[1], ids, user)
            yield from self._stored(home / STORAGE[1], set(ids), user)

    def _docker(self, root: Path, ids: Iterable[str], user: int) -> Iterator[Container]:
        for each in ids:
            found = self._read(root / "containers" / each / "config.v2.json", _Docker)
            if found is not None:
                yield Container(each, _names(found.name.removeprefix("/")), found.config.image, user)

    def _stored(self, root: Path, ids: set[str], user: int) -> Iterator[Container]:
        for directory in self._listed(root):
            if directory.name.endswith("-containers"):
                for name in ("containers.json", "volatile-containers.json"):
                    for each in self._read(directory / name, list[_Stored]) or ():
                        if each.id in ids:
                            yield Container(each.id, _names(*each.names or ()), _stored_image(each), user)

    def _bundles(self, root: Path, ids: Iterable[str]) -> Iterator[Container]:
        for namespace in self._listed(root):
            for each in ids:
                found = self._read(namespace / each / "config.json", _Bundle)
                said = (found.annotations if found else None) or {}
                name, pod, around = (
                    said.get(CRI + key, "") for key in ("container-name", "sandbox-name", "sandbox-namespace")
                )
                if name:
                    names = _names(name, pod and f"{pod}/{name}", pod and around and f"{around}/{pod}/{name}")
                    yield Container(each, names, said.get(f"{CRI}image-name", ""))

    def _listed(self, directory: Path) -> list[Path]:
        """What is in a directory, if there is one."""
        try:
            return sorted(directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._lacks(directory, error.strerror or "cannot be read", forbidden=isinstance(error, PermissionError))
            return []

    def _read(self, path: Path, kind: type[Read]) -> Read | None:
        """What a file holds; None if it is not there, or holds something else."""
        try:
            found = path.stat()
            if stat.S_ISREG(found.st_mode) and found.st_size <= MOST_BYTES:
                identity = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
                value: Read = _decoded(path, identity, cast("Hashable", kind))
                return value
            self._lacks(path, "it is no file of a runtime")
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self._lacks(path, error.strerror or "cannot be read", forbidden=isinstance(error, PermissionError))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            self._lacks(path, "it does not read as its runtime writes it")
        return None

    def _lacks(self, path: Path, why: str, *, forbidden: bool = False) -> None:
        self.unreadable.append(f"{path}: {why}")
        self.forbidden |= forbidden


def _names(*names: str) -> tuple[str, ...]:
    return tuple(each for each in names if each)


def _stored_image(stored: _Stored) -> str:
    try:
        return msgspec.json.decode(stored.metadata, type=_Metadata).image
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""


@lru_cache(MOST_KEPT)
def _decoded(path: Path, _identity: tuple[int, ...], kind: Any) -> Any:
    """`_identity`: of the file; while that is the same it is not read again."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as opened:
        return msgspec.json.decode(opened.read(MOST_BYTES), type=kind)
