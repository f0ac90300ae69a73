"""The one small interface of all energy sources: a zone that can be read."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from napctl.model.energy import Kind

__all__ = ["FileZone", "Found", "Unreadable", "Zone", "number_of", "text_of"]


class Unreadable(Exception):
    """A reading that failed, as a clause without the zone's name. It is a gap: never a zero."""


class Zone(Protocol):
    """What is measured by one counter, or by one meter of power."""

    @property
    def name(self) -> str:
        """As the source names it."""

    @property
    def kind(self) -> Kind:
        """What it covers."""

    @property
    def is_power(self) -> bool:
        """Whether read() gives a power, µW; else it gives a counter of energy, µJ."""

    @property
    def wrap_uj(self) -> int | None:
        """The counter counts modulo this; None: it does not wrap, or it is a power."""

    @property
    def interval_seconds(self) -> float:
        """How often it is worth reading, s; what its wrap demands is the reader's business."""

    @property
    def resolution(self) -> int | None:
        """The smallest step, µJ or µW; None if it is not known."""

    def read(self) -> int:
        """µJ or µW now. Raises Unreadable."""

    def close(self) -> None:
        """Give back what it holds."""


@dataclass(frozen=True)
class Found:
    """What one source has here."""

    source: str
    zones: tuple[Zone, ...] = ()
    lacks: tuple[str, ...] = ()
    """Clauses: why there is nothing, or what was left out and why."""


@dataclass(frozen=True)
class FileZone:
    """A zone that is one attribute in sysfs. It is opened anew for each reading: what vanishes is seen to vanish."""

    name: str
    kind: Kind
    path: Path
    is_power: bool = False
    wrap_uj: int | None = None
    interval_seconds: float = 1.0
    resolution: int | None = None
    denied: str = "permission denied"
    """What to say where the kernel does not let us read it."""

    def read(self) -> int:
        """µJ or µW now. Raises Unreadable."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                text = os.read(fd, 64)
            finally:
                os.close(fd)
        except OSError as error:
            raise Unreadable(self._told(error)) from None
        try:
            return int(text)
        except ValueError:
            raise Unreadable(f"{self.path.name} holds no number") from None

    def close(self) -> None:
        """Nothing is held."""

    def _told(self, error: OSError) -> str:
        if error.errno in (errno.EACCES, errno.EPERM):
            return self.denied
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            return "it has vanished"
        return f"reading {self.path.name}: {error.strerror}"


def text_of(path: Path) -> str | None:
    """An attribute without its newline; None if it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def number_of(path: Path) -> int | None:
    """An attribute that is a whole number; None if it cannot be read, or is none."""
    try:
        return int(text_of(path) or "")
    except ValueError:
        return None
