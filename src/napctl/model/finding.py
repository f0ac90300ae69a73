"""A Finding: something about a machine that costs or endangers, with what shows it and what to do."""

from typing import Literal

from napctl.model.census import Poller, XdpSocket
from napctl.model.machine import SCHEMA, Machine
from napctl.model.other_manager import Held, OtherManager
from napctl.model.value import Value
from napctl.model.window import Window

__all__ = ["Checkup", "CpuUse", "Diagnosis", "Evidence", "Finding", "Follower", "ProcessUse", "ThreadUse", "Unjudged"]


Severity = Literal["danger", "cost", "risk"]
"""`danger`: packets are lost, or wait far longer than anybody asked for. `cost`: CPU time or latency is wasted.
`risk`: nothing is lost yet; something that happens sooner or later will do it."""

Certainty = Literal["certain", "likely", "possible"]
"""`certain`: read or counted. `likely`: inferred from counts, another explanation is rare. `possible`: worth a look."""


class Evidence(Value, frozen=True, kw_only=True):
    """One fact with its figure, and where it was read."""

    text: str
    source: str
    """For example "probe", "/proc/net/softnet_stat", "ethtool netlink"."""


class Finding(Value, frozen=True, kw_only=True):
    """What one rule found about one object."""

    rule: str
    """Name of the rule, stable: "tx-only-interrupts"."""
    severity: Severity
    where: str
    """For example "eth0", "NAPI 12 of eth0 (rx0)", "nginx (1234)"."""
    title: str
    """One sentence with the figure."""
    evidence: tuple[Evidence, ...]
    consequence: str
    """What it costs or endangers."""
    remedy: str
    """What to do, in words; may be empty of commands."""
    commands: tuple[str, ...] = ()
    """Ready to be run, in the network namespace that was looked at."""
    certainty: Certainty
    basis: str
    """Source of the rule: kernel document, commit or published note."""
    mended_by: tuple[int, ...] = ()
    """Pids of napctl processes that mend it by themselves: nobody has to act on it."""


class ThreadUse(Value, frozen=True, kw_only=True):
    """A thread that used its CPU during the window."""

    tid: int
    cpu_share: float
    """Of one CPU, 0 … 1."""
    cpus: tuple[int, ...]
    """On which it was seen last at the beginning and at the end: one CPU, or two."""


class ProcessUse(Value, frozen=True, kw_only=True):
    """A process that matters to packet reception, during the window."""

    pid: int
    name: str
    cpu_share: float | None = None
    """CPU time of all its threads by the time, 1 being one CPU; None where it could not be read."""
    threads: tuple[ThreadUse, ...] = ()
    """Those that used at least 1 % of a CPU, busiest first."""
    napi_ids: tuple[int, ...] = ()
    """NAPI instances that feed its sockets."""


class CpuUse(Value, frozen=True, kw_only=True):
    """One CPU that is online."""

    cpu: int
    busy_share: float
    """Time not idle, by whatever: tasks, interrupts, softirqs; 0 … 1."""


class Follower(Value, frozen=True, kw_only=True):
    """A napctl that follows a server (`attach --stay`, `run`), and sets again what a device loses."""

    pid: int
    server: str
    """For example "memcached (1234)"."""
    napi_ids: tuple[int, ...]
    """Whose settings it has made."""


class Checkup(Value, frozen=True, kw_only=True):
    """All that the rules look at: the machine at the beginning and the end of a window, and the window."""

    schema: int = SCHEMA
    before: Machine
    machine: Machine
    window: Window
    """Of the whole machine: polls of other namespaces' devices too."""
    processes: tuple[ProcessUse, ...] = ()
    """Processes whose sockets these devices feed, NAPI threads, and irqbalance."""
    cpus: tuple[CpuUse, ...] = ()
    """CPUs online."""
    followers: tuple[Follower, ...] = ()
    managers: tuple[OtherManager, ...] = ()
    """Other programs that set what napctl sets."""
    held: tuple[Held, ...] = ()
    """What napctl has in force that they may set as well, by its journal."""
    pollers: tuple[Poller, ...] = ()
    """Programs that take packets past the kernel, or spin; of the whole machine."""
    xdp_sockets: tuple[XdpSocket, ...] = ()
    """Those that are bound to these devices."""


class Unjudged(Value, frozen=True, kw_only=True):
    """Rules that could not judge for lack of something."""

    why: str
    devices: tuple[str, ...]
    """Empty: they could not judge at all."""
    rules: tuple[str, ...]


class Diagnosis(Value, frozen=True, kw_only=True):
    """What `doctor` says, and all that it stands on."""

    schema: int = SCHEMA
    findings: tuple[Finding, ...]
    """To act on, most serious first."""
    mended: tuple[Finding, ...] = ()
    """Those that a napctl which follows a server mends by itself."""
    rules: tuple[str, ...]
    """Every rule that looked."""
    unjudged: tuple[Unjudged, ...]
    left_alone: tuple[str, ...] = ()
    """Sentences: what somebody else drives, so that nothing of it is judged or set."""
    checkup: Checkup
