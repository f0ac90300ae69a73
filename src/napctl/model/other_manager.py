"""Programs besides napctl that set how packets are taken: who they are, and what each of them touches."""

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from napctl.model.change import Change, ChannelsChange, CoalescingChange, RingsChange
from napctl.model.value import Value

__all__ = ["KNOWN_MANAGERS", "Concern", "Held", "KnownManager", "OtherManager", "Touch", "held_by", "touched"]


Concern = Literal["interrupt affinity", "coalescing", "rings", "channels"]


class KnownManager(NamedTuple):
    """How one is recognised: by the name of its process, and by its program or its unit."""

    name: str
    """As its documentation has it."""
    comm: str
    """Of its process; the kernel keeps 15 characters."""
    programs: tuple[str, ...]
    """File names of what it may be executed from; empty: an interpreter, which says nothing."""
    unit: str
    always: tuple[Concern, ...] = ()
    """What it touches whatever is configured."""
    how: str = ""
    """When it does it, for messages."""
    everywhere: bool = False
    """It runs on nearly every machine, and is told only where its files touch something."""


KNOWN_MANAGERS: tuple[KnownManager, ...] = (
    KnownManager("irqbalance", "irqbalance", ("irqbalance",), "irqbalance.service", ("interrupt affinity",),
                 "as the load of the CPUs changes"),
    KnownManager("tuned", "tuned", (), "tuned.service", how="when its profile is applied"),
    KnownManager("NetworkManager", "NetworkManager", ("NetworkManager",), "NetworkManager.service",
                 how="at each activation of a connection"),
    KnownManager("systemd-networkd", "systemd-network", ("systemd-networkd",), "systemd-networkd.service"),
    KnownManager("systemd-udevd", "systemd-udevd", ("systemd-udevd", "udevadm"), "systemd-udevd.service",
                 how="when a device appears", everywhere=True),
)  # fmt: skip
"""irqbalance(1); tuned.conf(5) and tuned/plugins/plugin_net.py; nm-settings-nmcli(5), ethtool; systemd.link(5), whose
files are read by systemd-udevd, whether or not systemd-networkd runs."""


class Touch(Value, frozen=True, kw_only=True):
    """What one of them sets, and where that is written."""

    what: Concern
    devices: tuple[str, ...] = ()
    """Names, or patterns of names; empty: which ones cannot be told from its files."""
    source: str = ""
    """The file that says so; empty: it does so by itself."""

    def may_be_of(self, names: Collection[str]) -> bool:
        """Whether one of these devices can be meant."""
        return not self.devices or any(fnmatchcase(name, each) for name in names for each in self.devices)


class OtherManager(Value, frozen=True, kw_only=True):
    """One that runs."""

    name: str
    pid: int
    how: str = ""
    """When it does what it does, for messages."""
    touches: tuple[Touch, ...] = ()

    @property
    def concerns(self) -> tuple[Concern, ...]:
        """Each once."""
        return tuple(dict.fromkeys(each.what for each in self.touches))


class Held(Value, frozen=True, kw_only=True):
    """A kind of setting that napctl has in force on a device."""

    what: Concern
    device: str


CONCERN_OF: dict[type, Concern] = {
    CoalescingChange: "coalescing",
    RingsChange: "rings",
    ChannelsChange: "channels",
}


def held_by(changes: Iterable[Change], netns: int) -> tuple[Held, ...]:
    """What these changes have set in a network namespace (inode number) that others may touch as well, each once."""
    found = (
        Held(what=CONCERN_OF[type(each)], device=each.device)
        for each in changes
        if isinstance(each, CoalescingChange | RingsChange | ChannelsChange) and each.netns == netns
    )
    return tuple(dict.fromkeys(found))


def touched(manager: OtherManager, held: Iterable[Held]) -> tuple[tuple[Held, Touch], ...]:
    """Of what is in force all that it may set as well, with the first of its files that says so."""
    pairs = (
        (each, [t for t in manager.touches if t.what == each.what and t.may_be_of([each.device])]) for each in held
    )
    return tuple((each, found[0]) for each, found in pairs if found)
