"""What a way of looking finds in a suspect, and what such a program tells of itself at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from napctl.census.pollers.spinning import Spin
from napctl.model.census import PollerKind

__all__ = ["MOST_COUNT", "Account", "Detected", "Statement"]


MOST_COUNT = (1 << 63) - 1
"""Of anything: what a program tells may be any number, and one that has no place in a float would end everything."""


@dataclass(frozen=True)
class Statement:
    """A program's own account at one moment; counts since its start, None: it does not tell."""

    received: int | None = None
    """Packets that its ports brought."""
    sent: int | None = None
    lost: int | None = None
    """Packets for which its ports had no place."""
    short: int | None = None
    """The same by all that their drivers count: one packet may be in several of these counts."""
    cycles: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Busy ones and all, by the thread's key; empty: it does not tell."""
    shares: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """What of its time was work, and where that is from, by the thread's key, where it tells a mean of its own."""
    troubles: tuple[str, ...] = ()
    """What it did not answer, and why."""


class Account(Protocol):
    """Where a program tells of itself. Asked at the beginning and at the end of the window."""

    source: str
    """For example "DPDK telemetry /eal/lcore/usage"."""

    def read(self) -> Statement:
        """Now. Raises nothing: what cannot be read stands in `troubles`."""

    def key(self, thread: Spin, pid: int) -> str | None:
        """Under which key of a Statement a thread stands; None: under none."""


@dataclass(frozen=True)
class Detected:
    """One way by which a process takes packets."""

    kind: PollerKind
    evidence: tuple[str, ...]
    devices: tuple[str, ...] = ()
    """Names of network devices, or addresses on the bus."""
    account: Account | None = None
    bypass: bool = True
    """It takes packets past the kernel's stack."""
    idle: str = ""
    """Why it does not, although its library is there: "it has no /dev/onload open"."""
    preloaded: bool = False
    """Its library stands before libc's sockets of a process that has some: all that it does not take, the kernel does.
    A program that is linked with a library may have been meant to do without it."""
    copies: bool = False
    """What its ports bring are copies: the kernel takes the same packets."""
    counts_include_port: bool = False
    """The device's counters count what its ports bring as well."""
    of_kernel: bool = True
    """The kernel has a network device of it, whose packets it counts."""
    remedy: str = ""
    """What to do about a CPU that it takes at rest."""
    troubles: tuple[str, ...] = ()
