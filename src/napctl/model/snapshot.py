"""A Snapshot: all that is to be told of a machine over months, at one moment. Metrics are made of the last one alone.

Counts are totals since the service began. They never fall: what a counter of the kernel lost, nobody knows, and it is
left out (napctl.model.counters).
"""

from operator import add
from typing import Literal, get_args

import msgspec

from napctl.model.histogram import EMPTY, Histogram, total
from napctl.model.latency import NOTHING, LatencyHistogram
from napctl.model.machine import Coalescing
from napctl.model.other_manager import OtherManager
from napctl.model.overload import LEVELS, Level
from napctl.model.settings import NapiSettings
from napctl.model.suspension_counts import WAIT_BUCKETS
from napctl.model.value import Value
from napctl.model.window import EmptyPolls

__all__ = [
    "DECISIONS",
    "PROBES",
    "Decision",
    "DeviceTotals",
    "FoundRule",
    "InterfaceTotals",
    "NapiTotals",
    "OverloadTotals",
    "OwnUse",
    "PolicyState",
    "PollTotals",
    "ProbeName",
    "Snapshot",
    "SuspensionTotals",
    "TargetTotals",
]


Decision = Literal["adapt", "adopt", "attach", "detach", "protect", "restore", "retry", "set", "yield"]
"""What the service decided. `adapt`: another timer, or interrupts; `adopt`: take over what an earlier process made;
`attach`, `detach`: a target, or a part of it; `protect`: a step against overload, there or back; `set`, `restore`: a
device's settings; `retry`: failed, and to be tried again later; `yield`: left to somebody else who keeps putting it
back."""
DECISIONS: tuple[Decision, ...] = get_args(Decision)

ProbeName = Literal["latency", "napi", "suspension"]
PROBES: tuple[ProbeName, ...] = get_args(ProbeName)


class SuspensionTotals(Value, frozen=True, kw_only=True):
    """Suspension of one NAPI instance, or of all of a device's."""

    suspensions: int = 0
    rescues: int = 0
    """Times that the safety timer (irq-suspend-timeout) had to end one."""
    suspended_ns: int = 0
    waits: tuple[int, ...] = (0,) * WAIT_BUCKETS
    """Packets by the upper bound of their wait for a poll (WAIT_BOUNDS_US)."""

    def __add__(self, other: "SuspensionTotals") -> "SuspensionTotals":
        return SuspensionTotals(
            suspensions=self.suspensions + other.suspensions,
            rescues=self.rescues + other.rescues,
            suspended_ns=self.suspended_ns + other.suspended_ns,
            waits=tuple(map(add, self.waits, other.waits)) if any(other.waits) else self.waits,
        )


class PollTotals(Value, frozen=True, kw_only=True):
    """Polls of one NAPI instance, or of all of a device's, by who made them."""

    softirq: Histogram = EMPTY
    thread: Histogram = EMPTY
    busy_poll: Histogram = EMPTY
    netpoll: Histogram = EMPTY
    empty: EmptyPolls = EmptyPolls()

    @property
    def all(self) -> Histogram:
        """Polls by anybody."""
        return total((self.softirq, self.thread, self.busy_poll, self.netpoll))

    def __add__(self, other: "PollTotals") -> "PollTotals":
        return PollTotals(
            softirq=_sum(self.softirq, other.softirq),
            thread=_sum(self.thread, other.thread),
            busy_poll=_sum(self.busy_poll, other.busy_poll),
            netpoll=_sum(self.netpoll, other.netpoll),
            empty=EmptyPolls(
                tx_only=self.empty.tx_only + other.empty.tx_only,
                while_polling=self.empty.while_polling + other.empty.while_polling,
                unattributed=self.empty.unattributed + other.empty.unattributed,
            ),
        )


def _sum(first: Histogram, second: Histogram) -> Histogram:
    """Most of them are empty: nobody polls in all four ways."""
    return first if second == EMPTY else second if first == EMPTY else first + second


class InterfaceTotals(Value, frozen=True, kw_only=True):
    """Packets and drops of one device, as its driver counts them."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0
    rx_missed: int = 0
    """Packets for which the device found no free RX descriptor."""

    def __add__(self, other: "InterfaceTotals") -> "InterfaceTotals":
        return InterfaceTotals(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class NapiTotals(Value, frozen=True, kw_only=True):
    """One NAPI instance of a device."""

    napi_id: int
    polls: PollTotals | None
    """None: the probe that counts them could not be loaded, or only whole devices are counted."""
    suspension: SuspensionTotals | None
    """The same."""
    interrupts: int | None
    """None: the driver does not tell its interrupt line, or only whole devices are counted."""
    settings: NapiSettings


class DeviceTotals(Value, frozen=True, kw_only=True):
    """One device."""

    device: str
    netns: int | None = None
    """Inode number of its network namespace; None: the service's own."""
    up: bool
    interface: InterfaceTotals
    polls: PollTotals | None
    """None: the probe that counts them could not be loaded."""
    suspension: SuspensionTotals | None
    """The same."""
    interrupts: int | None
    """None: the driver does not tell the interrupt lines."""
    coalescing: Coalescing | None
    napis: tuple[NapiTotals, ...]
    """Those that are there now."""
    drift: int = 0
    """Settings that are not as the policy wants them."""
    conflicts: int = 0
    """Settings that were left to somebody else who keeps putting them back."""
    changed_unix_ns: int | None = None
    """When the service last changed a setting of it; None: not yet."""
    protection_step: int | None = None
    """Of the ladder against overload: 0 none, 1 NAPI threads, 2 nice, 3 storm control; None: it is not protected."""


class TargetTotals(Value, frozen=True, kw_only=True):
    """One target of the policy."""

    target: str
    attached: bool
    verdict: str
    """Of the time since the snapshot before: see Now in napctl.model.activity; "" if it is not attached."""
    processes: int
    cpu_seconds: float
    """That its processes ran."""
    polls: int | None
    """That its processes made themselves, and the packets that they found; None: no probe."""
    packets: int | None
    until_read: LatencyHistogram | None = NOTHING
    """Some of the requests, chosen at random. None: no probe."""
    until_reply: LatencyHistogram | None = NOTHING
    timer_ns: int | None = None
    """gro-flush-timeout that the attachment has set."""
    mode: str = ""
    """Of the attachment, as of model/modes.py; "" if it is not attached."""
    drift: int = 0
    conflicts: int = 0


class FoundRule(Value, frozen=True, kw_only=True):
    """How often a rule of doctor found its fault on a device."""

    rule: str
    device: str
    """"": the machine."""
    severity: str
    count: int


class OverloadTotals(Value, frozen=True, kw_only=True):
    """CPUs that packets took from the threads that wanted them, and packets that were lost after the work on them."""

    seconds: dict[Level, float] = msgspec.field(default_factory=lambda: dict.fromkeys(LEVELS, 0.0))
    """Summed over CPUs."""
    late_drops: int | None = None
    """In the namespaces of the devices, and at the backlogs of CPUs; None: the kernel does not tell."""


class PolicyState(Value, frozen=True, kw_only=True):
    """What the service knows of itself."""

    decisions: dict[Decision, int] = msgspec.field(default_factory=dict)
    errors: int = 0
    """Things that failed and were written to the log."""
    policy_valid: bool = True
    """Whether the policy's file as it is now can be read; if not the one before is in force."""
    paused: bool = False
    protection_steps: dict[str, int] = msgspec.field(default_factory=dict)
    """Made against overload, by kind; empty: nothing is to be protected."""
    storm_drops: dict[str, int] = msgspec.field(default_factory=dict)
    """Packets that storm control dropped, by reason; empty: it is not allowed."""


class OwnUse(Value, frozen=True, kw_only=True):
    """What the service takes for itself."""

    cpu_seconds: float
    resident_bytes: int
    open_files: int


class Snapshot(Value, frozen=True, kw_only=True):
    """Everything, at one moment."""

    monotonic_ns: int
    """When it was taken."""
    seconds_to_take: float
    started_unix_ns: int
    """When the service began."""
    version: str
    kernel: str
    devices: tuple[DeviceTotals, ...] = ()
    targets: tuple[TargetTotals, ...] = ()
    probes: dict[ProbeName, bool]
    """Whether each could be loaded."""
    lost_polls: int = 0
    """Polls that found no place in the probe's table."""
    softirq_ns: int | None = None
    """In NET_RX softirqs, all CPUs; None: no probe."""
    thread_seconds: float = 0.0
    """That NAPI threads of these devices ran."""
    interrupts: int | None = None
    """Calls of device interrupt handlers, of whatever device; None: no probe."""
    time_squeezes: int | None = None
    backlog_drops: int | None = None
    overload: OverloadTotals = OverloadTotals()
    findings: tuple[FoundRule, ...] = ()
    """Most serious first."""
    findings_monotonic_ns: int | None = None
    """When doctor last looked; None: not yet."""
    managers: tuple[OtherManager, ...] = ()
    """Other programs that set what napctl sets."""
    policy: PolicyState = PolicyState()
    own: OwnUse
