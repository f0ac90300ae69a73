"""The ways of taking packets that are chosen among, and what one window showed of the way that it had."""

from napctl.model.errors import BadInput
from napctl.model.suspension import Suspension
from napctl.model.units import duration_text
from napctl.model.value import Value

__all__ = ["INTERRUPTS", "Way", "WayWindow", "ways_between"]


APART = 1.5
"""Timers nearer than this ratio cost and delay so nearly the same that telling them apart is not worth a trial."""


class Way(Value, frozen=True, kw_only=True):
    """How the packets of a NAPI instance are taken: by plain interrupts, or by suspension with a deferral timer."""

    gro_flush_timeout_ns: int | None
    """None: plain interrupts, that is no deferral on the instance, and prefer_busy_poll off."""

    def __str__(self) -> str:
        return "interrupts" if self.gro_flush_timeout_ns is None else duration_text(self.gro_flush_timeout_ns)


INTERRUPTS = Way(gro_flush_timeout_ns=None)


class WayWindow(Value, frozen=True, kw_only=True):
    """What one window showed, all of it under one way. None: a counter was reset meanwhile, or there is none."""

    way: Way
    seconds: float
    at: float
    """CLOCK_MONOTONIC at its end, seconds."""
    packets: int | None
    cpu_seconds: float | None
    """Run time of the server's processes and of the NAPI threads, and of NET_RX softirqs, wherever they ran."""
    p99_ns: float | None
    """Of the server-side latency: from when a packet may have reached the machine until the application has it."""
    p50_ns: float | None
    samples: int
    """Behind the percentiles."""
    until_poll_only: bool = False
    """The percentiles are of the wait for a poll, since nothing more can be seen here: a server that gets no CPU does
    not show in them."""
    instances: int = 1
    """NAPI instances that the packets came by. Loads are compared for each of them."""
    rested: float = 0.0
    """Seconds before it in which nobody looked, at the same load."""


def ways_between(
    shortest_ns: int, longest_ns: int, *, irq_suspend_timeout_ns: int = Suspension().irq_suspend_timeout_ns
) -> tuple[Way, ...]:
    """Plain interrupts, then the timers of a range from the shortest: its ends, and the round ones between (1, 2, 5).

    BadInput if the range is empty, or reaches the suspend timer: that is to step in only when an application is stuck,
    so deferral, which takes over whenever the application is idle, has to be shorter.
    """
    if longest_ns < shortest_ns:
        ends = f"{duration_text(shortest_ns)} to {duration_text(longest_ns)}"
        raise BadInput(f"the timer range {ends} is empty: give the shortest first")
    if shortest_ns <= 0:
        raise BadInput(f"the timer range begins at {shortest_ns}: a timer is longer than 0")
    if longest_ns >= irq_suspend_timeout_ns:
        raise BadInput(
            f"the timer range ends at {duration_text(longest_ns)}, but the suspend timer "
            f"(irq-suspend-timeout) is {duration_text(irq_suspend_timeout_ns)}: it must end below that"
        )
    timers = [shortest_ns]
    for timer in (digit * 10**power for power in range(len(str(longest_ns))) for digit in (1, 2, 5)):
        if timer >= APART * timers[-1] and timer * APART <= longest_ns:
            timers.append(timer)
    if longest_ns > shortest_ns:
        timers.append(longest_ns)
    return INTERRUPTS, *(Way(gro_flush_timeout_ns=timer) for timer in timers)
