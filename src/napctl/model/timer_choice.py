"""What timers cost under the traffic that there was, and which one was chosen."""

from collections.abc import Sequence
from statistics import median

from napctl.model.value import Value

__all__ = ["WORTH", "Saving", "TimerChoice", "Trial", "TrialWindow"]


WORTH = 0.1
"""A longer timer must save this share of the CPU time for each packet; less is not worth its latency."""


class TrialWindow(Value, frozen=True, kw_only=True):
    """What was counted in one window of a trial."""

    seconds: float
    cpu_seconds: float
    packets: int
    wait_p50_us: float | None


class Trial(Value, frozen=True, kw_only=True):
    """One timer under the traffic that there was. None: not measured."""

    gro_flush_timeout_ns: int
    cpu_share: float | None
    """Run time of the server's processes and NAPI threads, and of NET_RX softirqs, 1 standing for one CPU."""
    packets_per_second: float | None
    wait_p50_us: float | None
    """Upper bound of how long half of the packets waited for their poll: the proxy for latency."""
    cpu_us_per_packet: tuple[float, ...] = ()
    """CPU time for each packet in each window, µs. The first windows of all timers followed each other, and so on."""

    @classmethod
    def of(cls, gro_flush_timeout_ns: int, windows: Sequence[TrialWindow]) -> "Trial":
        """From what was counted in each window."""
        seconds = sum(each.seconds for each in windows)
        waits = [each.wait_p50_us for each in windows if each.wait_p50_us is not None]
        return cls(
            gro_flush_timeout_ns=gro_flush_timeout_ns,
            cpu_share=sum(each.cpu_seconds for each in windows) / seconds,
            packets_per_second=sum(each.packets for each in windows) / seconds,
            wait_p50_us=median(waits) if waits else None,
            cpu_us_per_packet=tuple(each.cpu_seconds * 1e6 / each.packets for each in windows),
        )


class Saving(Value, frozen=True, kw_only=True):
    """What a longer timer saved of the CPU time for each packet: a share, and where the true one is within the noise
    that was seen. Below 0: it cost more."""

    gro_flush_timeout_ns: int
    against_ns: int
    share: float
    least: float
    most: float

    @property
    def worth_it(self) -> bool:
        """Whether it is there beyond the noise, and is enough."""
        return self.share >= WORTH and self.least > 0


class TimerChoice(Value, frozen=True, kw_only=True):
    """The timer, and why."""

    gro_flush_timeout_ns: int
    why: str
    """A clause."""
    trials: tuple[Trial, ...] = ()
    savings: tuple[Saving, ...] = ()
    """Of each longer timer against the one that was the choice before it was looked at."""
