"""A policy: how packets shall be taken on a machine, as its administrator wrote it down. The service keeps it true."""

from ipaddress import ip_address
from typing import Literal

from napctl.model.machine import Coalescing
from napctl.model.modes import AskedMode
from napctl.model.plan import Deferral, GoalName, RingSizes
from napctl.model.value import Value

__all__ = [
    "POLICY_VERSION",
    "AttachEntry",
    "DeviceEntry",
    "MetricsPlace",
    "OnStop",
    "Origin",
    "Policy",
    "ProtectEntry",
    "ServiceEntry",
]


POLICY_VERSION = 1
"""Of the file: another napctl may know more keys. Version 1 is meant where none is given."""

OnStop = Literal["restore", "keep"]
"""What happens to what is in force when the service is stopped."""


class Origin(Value, frozen=True, kw_only=True):
    """Where an entry begins, for messages."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class AttachEntry(Value, frozen=True, kw_only=True):
    """`[[attach]]`: one target. Each key is the name of the option of `napctl attach`; None: its default."""

    origin: Origin
    target: str
    """As `napctl attach` takes it."""
    steer: bool = False
    force: bool = False
    mode: AskedMode | None = None
    """None: suspension."""
    spin: bool = False
    timer_ns: int | None = None
    """defer-us; None: chosen under the traffic that is there, or by adapting where there is a budget."""
    latency_budget_ns: int | None = None
    timer_range_ns: tuple[int, int] | None = None
    prefer: Literal["cpu", "latency"] | None = None
    defer_hard_irqs: int | None = None
    irq_suspend_timeout_ns: int | None = None
    busy_poll_usecs: int | None = None
    busy_poll_budget: int | None = None


class DeviceEntry(Value, frozen=True, kw_only=True):
    """`[[device]]`: those that it matches get what a goal proposes, and the settings that are written outright, which
    win. Exactly one of the first three says whom it matches."""

    origin: Origin
    name: str | None = None
    """Also an alternative name."""
    driver: str | None = None
    all: bool = False
    """Network hardware that is up."""
    goal: GoalName | None = None
    max_added_latency_ns: int | None = None
    """None: the goal's."""
    coalescing: Coalescing | None = None
    deferral: Deferral | None = None
    rings: RingSizes | None = None
    """Left alone unless they are named here."""
    channels: int | None = None
    """Combined channels; left alone unless named here."""


class ProtectEntry(Value, frozen=True, kw_only=True):
    """`[protect]`: devices that are kept from taking the machine by a flood. Each key is the name of what `napctl
    protect` takes."""

    origin: Origin
    devices: tuple[str, ...] | None = None
    """Names, also alternative ones; None: network hardware that is up."""
    threshold: int = 90
    """Percent of a CPU's time."""
    storm_control: int | None = None
    """Packets a second; None: it is not allowed."""


class MetricsPlace(Value, frozen=True, kw_only=True):
    """Where metrics are to be had: an address and port, or a file for node_exporter's textfile collector."""

    address: str | None = None
    port: int | None = None
    textfile: str | None = None

    @property
    def is_beyond_loopback(self) -> bool:
        """Whether it is an address that other machines may reach."""
        return self.address is not None and not ip_address(self.address).is_loopback


class ServiceEntry(Value, frozen=True, kw_only=True):
    """`[service]`."""

    on_stop: OnStop = "restore"
    guard_wait_ns: int = 60 * 10**9
    """How long the guard waits for a killed service to come back before it restores."""
    metrics: MetricsPlace | None = None
    """None: nowhere."""
    metrics_per_napi: bool = False
    """Series per NAPI instance instead of per device."""


class Policy(Value, frozen=True, kw_only=True):
    """All files together. Of devices that several entries match, each setting is the last entry's that has it."""

    version: int = POLICY_VERSION
    attach: tuple[AttachEntry, ...] = ()
    devices: tuple[DeviceEntry, ...] = ()
    protect: ProtectEntry | None = None
    service: ServiceEntry = ServiceEntry()
