"""What planning knows of one device, and what it has said of it so far."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from napctl.model.machine import Device, DimProfile
from napctl.model.plan import InstanceThread, Proposal
from napctl.model.settings import kernel_name
from napctl.model.value import Value
from napctl.model.window import Window
from napctl.plan.goals import Goal

__all__ = ["Draft", "Known", "Range", "has_deferral"]


Setting = int | bool | tuple[DimProfile, ...]

COALESCING = "coalescing: ethtool netlink"
DEFERRAL = "deferral: netdev netlink"


class Range(Value, frozen=True, kw_only=True):
    """Between which delays adaptive RX shall move, µs. None: as the link and the latency budget give it."""

    shortest_us: int | None = None
    longest_us: int | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """Everything that the settings of one device are computed from."""

    device: Device
    goal: Goal
    budget_ns: int
    budget_given: bool
    """By the user, and not by the goal."""
    speed_mbps: int | None
    speed_given: bool
    """By the user: the driver does not tell it, or tells less."""
    tcp_limit_bytes: int | None
    udp_send_buffer_bytes: int | None
    held: tuple[int, ...]
    """NAPI instances whose deferral belongs to an application that polls them, or to IRQ suspension."""
    window: Window | None
    adaptive: Range | None = None
    """Adaptive RX is wanted, inside this range; None: a fixed delay is."""

    def ring(self, kind: str) -> int | None:
        """Descriptors of the "rx" or "tx" ring; None if the driver does not tell."""
        size: int | None = getattr(self.device.rings, kind, None)
        return size

    @property
    def budget_source(self) -> str:
        """Where the budget comes from."""
        origin = "--max-added-latency" if self.budget_given else f"goal {self.goal.name}"
        return f"budget of {self.budget_ns / 1000:g} µs: {origin}"

    @property
    def speed_source(self) -> str:
        """Where the link speed comes from."""
        return f"link speed of {self.speed_mbps:,} Mb/s: {'--speed' if self.speed_given else 'ethtool netlink'}"

    def ring_source(self, kind: str) -> str:
        """Where the size of a ring comes from."""
        return f"{kind.upper()} ring of {self.ring(kind):,}: ethtool netlink"

    @property
    def limit_source(self) -> str:
        """Where TCP's limit comes from."""
        return f"tcp_limit_output_bytes {self.tcp_limit_bytes:,}: /proc/sys/net/ipv4"


def has_deferral(device: Device) -> bool:
    """Whether all its NAPI instances have both halves of it (Linux 6.13); without any instance there is none."""
    halves = [(napi.settings.defer_hard_irqs, napi.settings.gro_flush_timeout_ns) for napi in device.napis]
    return bool(halves) and not any(None in each for each in halves)


@dataclass
class Draft:
    """Proposals for one device, as they are found."""

    device: Device
    proposals: list[Proposal] = field(default_factory=list)
    threads: list[InstanceThread] = field(default_factory=list)
    unsupported: list[Proposal] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def coalesce(self, setting: str, value: Setting, why: str, bound: str, sources: Iterable[str]) -> None:
        """That the driver has it is the caller's to know, else it is counted as unsupported."""
        now = getattr(self.device.coalescing, setting, None)
        proposal = self._proposal(setting, now, value, why, bound, [*sources, COALESCING])
        if now is None:
            self.unsupported.append(proposal)
        elif now != value:
            self.proposals.append(proposal)

    def defer(self, setting: str, value: int, why: str, bound: str, sources: Iterable[str]) -> None:
        """For all NAPI instances alike."""
        found = {getattr(napi.settings, setting) for napi in self.device.napis}
        now = found.pop() if len(found) == 1 else None
        proposal = self._proposal(setting, now, value, why, bound, [*sources, DEFERRAL])
        if not has_deferral(self.device):
            self.unsupported.append(proposal)
        elif now != value:
            self.proposals.append(proposal)

    def leave(self, sentence: str) -> None:
        """What stays as it is, and why."""
        self.left.append(f"{self.device.name}: {sentence}")

    def differing(self, settings: Iterable[str]) -> bool:
        """Whether queues differ in one of the settings, which a device-wide value would level; says so."""
        for setting in settings:
            if len({getattr(each.coalescing, setting) for each in self.device.queue_coalescing}) > 1:
                self.leave(
                    f"its queues differ in {kernel_name(setting)}, and a device-wide value would level them: "
                    f"plan [{self.device.name}.queue.N] by hand"
                )
                return True
        return False

    def _proposal(
        self, setting: str, now: Setting | None, value: Setting, why: str, bound: str, sources: list[str]
    ) -> Proposal:
        return Proposal(
            device=self.device.name,
            setting=setting,
            now=now,
            proposed=value,
            why=why,
            bound=bound,
            sources=tuple(sources),
        )
