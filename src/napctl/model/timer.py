"""Which gro-flush-timeout an attachment gets, and what it was chosen from."""

from collections.abc import Sequence

from napctl.model.value import Value

TIMERS_NS = (20_000, 50_000, 200_000)
"""What is tried, from the shortest: published experiments and the kernel's documentation use 20 to 200 µs."""
WORTH = 0.1
"""A longer timer must save this share of the CPU time for each packet; less is not worth its latency."""
FALLBACK_NS = 200_000
"""Without traffic to try it on: the timer with which the server makes most polls itself."""


class Trial(Value, frozen=True, kw_only=True):
    """One timer under the traffic that there was. None: not measured."""

    gro_flush_timeout_ns: int
    cpu_share: float | None
    """CPU time of the CPUs on which the queues and the workers run, 1 standing for one CPU."""
    packets_per_second: float | None
    wait_p50_us: float | None
    """Upper bound of how long half of the packets waited for their poll: the proxy for latency."""

    @property
    def cpu_us_per_packet(self) -> float | None:
        """CPU time for each packet, µs."""
        if self.cpu_share is None or not self.packets_per_second:
            return None
        return self.cpu_share * 1e6 / self.packets_per_second


class TimerChoice(Value, frozen=True, kw_only=True):
    """The timer, and why."""

    gro_flush_timeout_ns: int
    why: str
    """A clause."""
    trials: tuple[Trial, ...] = ()


def within(budget_ns: int | None) -> tuple[int, ...]:
    """The timers worth trying under a latency budget: a packet waits at most that long for its poll."""
    if budget_ns is None:
        return TIMERS_NS
    return tuple(each for each in TIMERS_NS if each <= budget_ns) or (budget_ns,)


def chosen(trials: Sequence[Trial], budget_ns: int | None) -> TimerChoice:
    """From trials in ascending order: the shortest timer, unless a longer one saves enough CPU time for each packet."""
    told = [each for each in trials if each.cpu_us_per_packet is not None]
    if len(told) < len(trials) or not told:
        timer = within(budget_ns)[-1]
        return TimerChoice(gro_flush_timeout_ns=timer, why="too little traffic to try timers on", trials=tuple(trials))
    best = told[0]
    for each in told[1:]:
        assert each.cpu_us_per_packet is not None
        assert best.cpu_us_per_packet is not None
        if each.cpu_us_per_packet < (1 - WORTH) * best.cpu_us_per_packet:  # never so if that is 0
            best = each
    if best is told[0] and len(told) > 1:
        why = f"no longer one saves {WORTH:.0%} of the CPU time for each packet"
    elif best is told[0]:
        why = "the only one within the latency budget"
    else:
        assert best.cpu_us_per_packet is not None
        assert told[0].cpu_us_per_packet is not None
        saved = 1 - best.cpu_us_per_packet / told[0].cpu_us_per_packet
        why = f"it saves {saved:.0%} of the CPU time for each packet against the shortest"
    return TimerChoice(gro_flush_timeout_ns=best.gro_flush_timeout_ns, why=why, trials=tuple(trials))
