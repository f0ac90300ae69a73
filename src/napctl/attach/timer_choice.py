"""Which gro-flush-timeout an attachment gets, and what it was chosen from."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from napctl.model.timer_choice import WORTH, Saving, TimerChoice, Trial
from napctl.model.units import duration_text
from napctl.stats.saving import saved

__all__ = ["ALPHA", "TIMERS_NS", "chosen", "untried", "whole_rounds", "within"]


TIMERS_NS = (20_000, 50_000, 200_000)
"""What is tried, from the shortest: published experiments and the kernel's documentation use 20 to 200 µs."""
ALPHA = 0.05
"""How often, at most, a sweep takes noise for a saving of one of its longer timers."""
ROUNDS_FOR_ONE = 6
"""Rounds, of which one without packets may be lost."""


class HasPackets(Protocol):
    """A window of a sweep."""

    @property
    def packets(self) -> int:
        """That were polled in it."""


K = TypeVar("K")
W = TypeVar("W", bound=HasPackets)


def whole_rounds(windows: Mapping[K, Sequence[W]]) -> Mapping[K, Sequence[W]] | None:
    """What was tried, in the rounds in which every window saw packets: they are compared in pairs. None: too few had.

    Of six rounds one may be lost, as a machine stalls now and then; a way that stalls a server does so more often.
    """
    rounds = min(map(len, windows.values()))
    kept = [turn for turn in range(rounds) if all(each[turn].packets for each in windows.values())]
    if not kept or rounds - len(kept) > rounds // ROUNDS_FOR_ONE:
        return None
    return {way: [each[turn] for turn in kept] for way, each in windows.items()}


def within(budget_ns: int | None) -> tuple[int, ...]:
    """The timers worth trying under a latency budget: a packet waits at most that long for its poll."""
    if budget_ns is None:
        return TIMERS_NS
    return tuple(each for each in TIMERS_NS if each <= budget_ns) or (budget_ns,)


def untried(budget_ns: int | None, why: str) -> TimerChoice:
    """The longest timer within the budget, where none can be tried."""
    timers = within(budget_ns)
    trials = (
        Trial(gro_flush_timeout_ns=each, cpu_share=None, packets_per_second=None, wait_p50_us=None) for each in timers
    )
    return TimerChoice(gro_flush_timeout_ns=timers[-1], why=why, trials=tuple(trials))


def chosen(trials: Sequence[Trial]) -> TimerChoice:
    """From trials in ascending order, of as many windows each: the shortest timer, unless a longer one saves enough CPU
    time for each packet, and that beyond the noise."""
    best = trials[0]
    savings = []
    for each in trials[1:]:
        saving = _saving(best, each, ALPHA / (len(trials) - 1))
        if saving is not None:
            savings.append(saving)
            best = each if saving.worth_it else best
    return TimerChoice(
        gro_flush_timeout_ns=best.gro_flush_timeout_ns,
        why=_why(trials, best, savings),
        trials=tuple(trials),
        savings=tuple(savings),
    )


def _saving(shorter: Trial, longer: Trial, alpha: float) -> Saving | None:
    """None where nothing can be told."""
    found = saved(shorter.cpu_us_per_packet, longer.cpu_us_per_packet, alpha)
    return (
        None
        if found is None
        else Saving(
            gro_flush_timeout_ns=longer.gro_flush_timeout_ns,
            against_ns=shorter.gro_flush_timeout_ns,
            share=found.share,
            least=found.least,
            most=found.most,
        )
    )


def _why(trials: Sequence[Trial], best: Trial, savings: Sequence[Saving]) -> str:
    if best is not trials[0]:
        (saving,) = (each for each in savings if each.gro_flush_timeout_ns == best.gro_flush_timeout_ns)
        (other,) = (each for each in trials if each.gro_flush_timeout_ns == saving.against_ns)
        waits = other.wait_p50_us, best.wait_p50_us
        wait = "" if None in waits else f", p50 wait {waits[1]:.0f} instead of {waits[0]:.0f} µs"
        than = duration_text(saving.against_ns)
        return f"{_percent(saving.share)} less CPU per packet than {than} ({_noise(saving)}){wait}"
    if not savings:
        return "the CPU time is too short to be measured"
    told = ", ".join(
        f"{duration_text(each.gro_flush_timeout_ns)} saves {_percent(each.share)} ({_noise(each)})" for each in savings
    )
    return f"no longer one saves {_percent(WORTH)} of the CPU per packet beyond the noise: {told}"


def _noise(saving: Saving) -> str:
    return f"{100 * saving.least:.0f} to {_percent(saving.most)} within the noise"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
