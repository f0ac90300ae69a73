"""Changes of settings, as the journal keeps them: what was, what napctl made of it, and what became of that."""

from collections.abc import Iterable
from typing import Literal

from napctl.model.machine import Coalescing
from napctl.model.plan import ChannelCounts, RingSizes
from napctl.model.settings import EpollParams, NapiSettings, RingPolling, SocketPolling, ThreadSettings
from napctl.model.storm_change import StormChange
from napctl.model.value import Value

__all__ = [
    "Change",
    "ChannelsChange",
    "CoalescingChange",
    "DeviceChange",
    "EpollChange",
    "Guard",
    "Holder",
    "InstanceChange",
    "IoUringChange",
    "Keeper",
    "Kind",
    "NapiChange",
    "PollerChange",
    "Restored",
    "RingsChange",
    "SocketChange",
    "State",
    "Steered",
    "SteeringChange",
    "Switch",
    "TargetProcess",
    "ThreadChange",
    "Transaction",
    "devices_of",
]


class _DeviceChange(Value, frozen=True, kw_only=True):
    """Of settings that a driver is given as a whole, and of which it may make something else than was asked.

    `before` is all that it reported, `after` what is asked for (None: not touched), `found` all that it reported then
    (None: that was not recorded).
    """

    netns: int
    """Inode number of the device's network namespace."""
    netns_cookie: int = 0
    """The namespace's, which no other gets until reboot; 0: not known."""
    device: str
    ifindex: int
    bus: str | None = None
    """Where the NIC sits, by which it is known again in another namespace."""


class CoalescingChange(_DeviceChange, frozen=True, kw_only=True, tag="coalescing"):
    """Interrupt coalescing of one device, or of one of its queues."""

    queue: int | None = None
    """None: device-wide."""
    before: Coalescing
    after: Coalescing
    found: Coalescing | None = None

    @property
    def where(self) -> str:
        """For messages."""
        return self.device if self.queue is None else f"queue {self.queue} of {self.device}"


class RingsChange(_DeviceChange, frozen=True, kw_only=True, tag="rings"):
    """Ring sizes of one device."""

    before: RingSizes
    after: RingSizes
    found: RingSizes | None = None

    @property
    def where(self) -> str:
        """For messages."""
        return f"rings of {self.device}"


class ChannelsChange(_DeviceChange, frozen=True, kw_only=True, tag="channels"):
    """Numbers of queues of one device. Its NAPI instances are renumbered by it."""

    before: ChannelCounts
    after: ChannelCounts
    found: ChannelCounts | None = None

    @property
    def where(self) -> str:
        """For messages."""
        return f"channels of {self.device}"


class NapiChange(Value, frozen=True, kw_only=True, tag="napi"):
    """Deferral and suspension of one NAPI instance. In `before` and `after`, None stands for: not touched."""

    netns: int
    """Inode number of the device's network namespace."""
    device: str
    ifindex: int
    napi_id: int
    before: NapiSettings
    after: NapiSettings
    leaving: NapiSettings | None = None
    """What napctl had set before `after`, while it exchanges one for the other: either may be in force."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"NAPI {self.napi_id} of {self.device}"


class ThreadChange(Value, frozen=True, kw_only=True, tag="thread"):
    """The kernel thread of one NAPI instance: whether it has one, its nice value and its CPUs. None as of a NapiChange.

    Without a thread `before` has what a new one begins with: its nice value and its CPUs end with it.
    """

    netns: int
    """Inode number of the device's network namespace."""
    device: str
    ifindex: int
    napi_id: int
    whole_device: bool = False
    """The kernel switches the threads of all its instances at once (before Linux 6.17)."""
    before: ThreadSettings
    after: ThreadSettings
    leaving: ThreadSettings | None = None
    """As of a NapiChange."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"NAPI thread {self.napi_id} of {self.device}"


class Holder(Value, frozen=True, kw_only=True):
    """A process that holds what is changed, and under which descriptor."""

    pid: int
    started_ticks: int
    fd: int


class EpollChange(Value, frozen=True, kw_only=True, tag="epoll"):
    """Busy-poll parameters of one epoll instance of one process."""

    pid: int
    name: str
    started_ticks: int
    """Start of the process in clock ticks after boot: tells it from a later process with the same pid."""
    epoll_fd: int
    also: tuple[Holder, ...] = ()
    """Others that held the same instance when it was changed, as after a fork: it lives as long as one does."""
    before: EpollParams
    after: EpollParams
    leaving: EpollParams | None = None
    """As of a NapiChange."""

    @property
    def holders(self) -> tuple[Holder, ...]:
        """Wherever it is held."""
        return (Holder(pid=self.pid, started_ticks=self.started_ticks, fd=self.epoll_fd), *self.also)

    @property
    def where(self) -> str:
        """For messages."""
        return f"epoll {self.epoll_fd} of {self.name} ({self.pid})"


class SocketChange(Value, frozen=True, kw_only=True, tag="socket"):
    """Busy polling by the reads of one socket that its process does not wait for in epoll."""

    pid: int
    name: str
    started_ticks: int
    fd: int
    inode: int
    """The socket's: tells it from another one that came to have its descriptor."""
    budget: int
    """Packets that one busy poll may take while this is in force. The kernel tells nobody what it was before: undoing
    leaves its default."""
    before: SocketPolling
    after: SocketPolling
    leaving: SocketPolling | None = None
    """As of a NapiChange."""

    @property
    def holders(self) -> tuple[Holder, ...]:
        """The one that is known."""
        return (Holder(pid=self.pid, started_ticks=self.started_ticks, fd=self.fd),)

    @property
    def where(self) -> str:
        """For messages."""
        return f"socket {self.fd} of {self.name} ({self.pid})"


class IoUringChange(Value, frozen=True, kw_only=True, tag="io_uring"):
    """NAPI busy polling of one io_uring instance of one process."""

    pid: int
    name: str
    started_ticks: int
    fd: int
    inode: int
    """The ring's, which no other has: tells it from another one that came to have its descriptor."""
    also: tuple[Holder, ...] = ()
    """As of an EpollChange."""
    before: RingPolling
    after: RingPolling
    leaving: RingPolling | None = None
    """As of a NapiChange."""

    @property
    def holders(self) -> tuple[Holder, ...]:
        """Wherever it is held."""
        return (Holder(pid=self.pid, started_ticks=self.started_ticks, fd=self.fd), *self.also)

    @property
    def where(self) -> str:
        """For messages."""
        return f"ring {self.fd} of {self.name} ({self.pid})"


class Steered(Value, frozen=True, kw_only=True):
    """How a SO_REUSEPORT group chooses: by the RX queue, or, as the kernel does, by a hash."""

    steered_by_queue: bool


class SteeringChange(Value, frozen=True, kw_only=True, tag="steering"):
    """The program of one SO_REUSEPORT group. It is reached through any member, whoever holds it by then."""

    pid: int
    name: str
    started_ticks: int
    fd: int
    inodes: tuple[int, ...]
    """Of its members; that of `fd` first."""
    address: str
    before: Steered = Steered(steered_by_queue=False)
    after: Steered = Steered(steered_by_queue=True)

    @property
    def where(self) -> str:
        """For messages."""
        return f"{len(self.inodes)} listeners on {self.address}"


DeviceChange = CoalescingChange | RingsChange | ChannelsChange
"""Of what a driver is given as a whole."""
InstanceChange = NapiChange | ThreadChange
"""Of what one NAPI instance has."""
PollerChange = EpollChange | SocketChange | IoUringChange
"""Of who polls."""
Change = (
    NapiChange | ThreadChange | EpollChange | SocketChange | IoUringChange | SteeringChange
    | CoalescingChange | RingsChange | ChannelsChange | StormChange
)  # fmt: skip

State = Literal["changing", "attached", "applied", "unconfirmed", "restoring", "restored"]
"""`unconfirmed`: in force until it is confirmed, or its time has come and the guard restores it."""

Kind = Literal["attach", "apply", "verify", "protect"]


class Guard(Value, frozen=True, kw_only=True):
    """The process that restores a transaction which nobody confirms in time, or whose keeper has died."""

    pid: int
    """0: of the service, whichever process that is by now. What it holds tells whether one watches (guard_lock.py)."""
    started_ticks: int
    deadline_boot_ns: int
    """On CLOCK_BOOTTIME, which goes on while the machine sleeps; 0: none, it waits for the end of the keeper."""
    wait_ns: int = 0
    """After the keeper's end, for another one to take the transaction over. The guard that notices the end makes it a
    deadline."""


class Keeper(Value, frozen=True, kw_only=True):
    """The napctl that keeps what it has set for as long as it runs."""

    pid: int
    started_ticks: int
    entry: str = ""
    """Of the service: the target as the policy names it, or "devices"; empty: it is not the service."""


class Switch(Value, frozen=True, kw_only=True):
    """What an attachment was changed to while it stood, and why."""

    unix_ns: int
    to: str
    """"interrupts", or "gro-flush-timeout 50us"."""
    why: str


class TargetProcess(Value, frozen=True, kw_only=True):
    """One process of a target."""

    pid: int
    started_ticks: int


class Transaction(Value, frozen=True, kw_only=True):
    """Changes that belong together. In `changing` and `restoring` any prefix of them may be in force."""

    number: int = 0
    """Given by the journal."""
    state: State = "changing"
    since_unix_ns: int = 0
    """When it came into this state; kept by the journal."""
    kind: Kind = "attach"
    boot_id: str
    """Boot in which it was made: a reboot undoes everything."""
    made_unix_ns: int
    name: str
    """Of the process attached to, or of the devices."""
    pid: int = 0
    """The process attached to; 0 if there is none."""
    started_ticks: int = 0
    also: tuple[TargetProcess, ...] = ()
    """The others of its target, where it changes nothing of their own, by which they were known."""
    forced: tuple[str, ...] = ()
    """Safety bounds that it goes beyond, as the user insisted."""
    guard: Guard | None = None
    keeper: Keeper | None = None
    """None: it stays until somebody detaches."""
    changes: tuple[Change, ...]
    switches: tuple[Switch, ...] = ()
    """The newest of them, the last one last."""

    @property
    def on_interrupts(self) -> bool:
        """Whether what is attached is to take its packets by plain interrupts for now, as adapting has decided."""
        asked = [each.after for each in self.changes if isinstance(each, PollerChange)]
        return bool(asked) and not any(each.prefer_busy_poll or each.busy_poll_usecs for each in asked)

    @property
    def suspends(self) -> bool:
        """Whether interrupts of a NAPI instance are suspended while its server polls."""
        timeouts = [each.after.irq_suspend_timeout_ns for each in self.changes if isinstance(each, NapiChange)]
        return any(timeouts) and not self.on_interrupts

    @property
    def busy_polls(self) -> bool:
        """Whether tasks of it busy poll without suspension, which costs CPU time."""
        polling = (each.after for each in self.changes if isinstance(each, SocketChange | IoUringChange))
        return any(each.prefer_busy_poll or each.busy_poll_usecs for each in polling)

    @property
    def several_ways(self) -> bool:
        """Whether some of what is attached polls and some takes its packets by plain interrupts."""
        asked = [each.after for each in self.changes if isinstance(each, PollerChange)]
        return len({each.prefer_busy_poll or each.busy_poll_usecs > 0 for each in asked}) > 1

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.name} ({self.pid})" if self.kind == "attach" else f"{self.kind} {self.number} on {self.name}"


class Restored(Value, frozen=True, kw_only=True):
    """What became of one setting when its change was undone."""

    where: str
    setting: str
    outcome: Literal["restored", "unchanged", "left", "gone"]
    """`unchanged`: it already had its former value. `left`: somebody else changed it since. `gone`: its object is."""
    before: int | bool | str | None
    """Its former value."""
    found: int | bool | str | None
    """The value found just now; None if the object is gone."""


def devices_of(found: Iterable[Change]) -> tuple[str, ...]:
    """Names of the devices that changes are made on, each once."""
    kinds = DeviceChange | InstanceChange | StormChange
    names = (change.device for change in found if isinstance(change, kinds))
    return tuple(dict.fromkeys(names))
