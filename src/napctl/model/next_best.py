"""What fits a target where IRQ suspension does not, what each mode costs, and which is the best."""

from collections.abc import Sequence
from statistics import median

from napctl.model.modes import Mode
from napctl.model.value import Value

__all__ = ["NextBest", "Offer", "Price", "PriceWindow", "Saved"]


class PriceWindow(Value, frozen=True, kw_only=True):
    """What was counted in one window of a trial."""

    seconds: float
    cpu_seconds: float
    packets: int
    polls: int | None
    """By anybody; None: not counted."""
    wait_p50_us: float | None
    read_p50_us: float | None = None
    """Server-side latency: until the target had read what came; None: not seen."""


class Price(Value, frozen=True, kw_only=True):
    """What a mode costs, under the traffic that there was. None: not measured."""

    cpu_share: float
    """Run time of the target's processes and NAPI threads, and of NET_RX softirqs, 1 standing for one CPU."""
    packets_per_second: float
    polls_per_second: float | None
    wait_p50_us: float | None
    """Upper bound of how long half of the packets waited for their poll."""
    read_p50_us: float | None
    """Server-side latency: until the target had read what came; the window in the middle."""
    cpu_us_per_packet: tuple[float, ...]
    """In each window, µs. The first windows of all modes followed each other, and so on."""
    read_us: tuple[float, ...]
    """`read_p50_us` of each window; empty if one did not see it."""

    @classmethod
    def of(cls, windows: Sequence[PriceWindow]) -> "Price":
        """From what was counted in each window, of which none is without packets."""
        seconds = sum(each.seconds for each in windows)
        waits = [each.wait_p50_us for each in windows if each.wait_p50_us is not None]
        reads = [each.read_p50_us for each in windows if each.read_p50_us is not None]
        polls = [each.polls for each in windows if each.polls is not None]
        return cls(
            cpu_share=sum(each.cpu_seconds for each in windows) / seconds,
            packets_per_second=sum(each.packets for each in windows) / seconds,
            polls_per_second=sum(polls) / seconds if len(polls) == len(windows) else None,
            wait_p50_us=median(waits) if waits else None,
            read_p50_us=median(reads) if reads else None,
            cpu_us_per_packet=tuple(each.cpu_seconds * 1e6 / each.packets for each in windows),
            read_us=tuple(reads) if len(reads) == len(windows) else (),
        )

    @property
    def cpu_us(self) -> float:
        """For each packet, in the window in the middle."""
        return median(self.cpu_us_per_packet)


class Saved(Value, frozen=True, kw_only=True):
    """Of something, against what was there before: a share, and where the true one is within the noise that was seen.
    Below 0: it costs more."""

    share: float
    least: float
    most: float


class Offer(Value, frozen=True, kw_only=True):
    """A mode, and whether it fits."""

    mode: Mode
    spins: bool = False
    """Of a thread: it never sleeps."""
    fits: bool
    why: str
    """What it costs in principle; or why it does not fit. A clause."""
    price: Price | None = None
    """None: not measured."""
    cpu_saved: Saved | None = None
    """Of the CPU time for each packet; None: not measured, or too short to be."""
    time_saved: Saved | None = None
    """Of the time until the target has read what came; the same."""

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"{self.mode} --spin" if self.spins else self.mode


class NextBest(Value, frozen=True, kw_only=True):
    """All offers, with their prices where they were measured."""

    offers: tuple[Offer, ...]
    gro_flush_timeout_ns: int
    """Where interrupts are deferred."""
    as_it_is: Price | None = None
    """With nothing changed."""
    unmeasured: str = ""
    """Why there are no prices; empty: there are."""
    best: Offer | None = None
    """None: none is better than what is there."""
    why: str = ""
    """Of `best`, or of there being none: a clause with the figures."""
