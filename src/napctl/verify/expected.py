"""What a setting would do to this traffic if it were obeyed: the least that an honest model promises.

"It has no effect" may be said only where an effect would have been seen. All that is needed is what happened without
the delay: an event (an interrupt, or a poll) opens the delay, and the events that would have come meanwhile are those
that it swallows. With e events per second and a delay of D seconds that leaves 1 / (1 + eD) of them. That holds for
single packets (Poisson arrivals: 1 + λD packets to an interrupt), for bursts, near saturation, where events are few and
little is promised, and for a client that waits for each answer, whose whole traffic becomes slower.
"""

from collections.abc import Callable, Sequence
from math import exp

from msgspec.structs import replace

from napctl.model.settings import NapiSettings
from napctl.model.value import Value

__all__ = ["SHOWABLE", "Expectation", "InstanceLoad", "frames_bound", "of_deferral", "of_delay", "of_frames"]


SHOWABLE = 1.5
"""An expected ratio must be that far from 1, in either direction, before its absence says anything."""
WINDOW_SHARE = 0.25
"""Share of a window's packets that one event may stand for, where frames alone bound the gathering."""


class InstanceLoad(Value, frozen=True, kw_only=True):
    """What one instance had per second in the arm that delays less."""

    events: float
    packets: float


class Expectation(Value, frozen=True, kw_only=True):
    """The ratio of events, with the setting to without it; and the traffic that would show it."""

    ratio: float | None
    """None: no model."""
    needs: str | None = None
    """Where the ratio is too near to 1: what would be enough."""
    either_way: bool = False
    """An effect in the other direction is one too."""

    @property
    def showable(self) -> bool:
        """Whether the absence of this effect would say anything."""
        return self.ratio is not None and not 1 / SHOWABLE < self.ratio < SHOWABLE


def of_delay(loads: Sequence[InstanceLoad], on_us: int, off_us: int, frames: int | None) -> Expectation:
    """rx-usecs and tx-usecs; `frames` bounds what may gather meanwhile, None or 0: nothing does."""
    more_s = abs(on_us - off_us) / 1e6

    def left(load: InstanceLoad) -> float:
        already = load.packets / load.events
        gathered = already * (1 + load.events * more_s)
        return load.packets / (max(already, min(frames, gathered)) if frames else gathered)

    if frames == 1:
        return Expectation(ratio=1.0, needs="more frames than 1 to wait for: with 1 each has its interrupt")
    least = (SHOWABLE - 1) / more_s if more_s else None
    return _expectation(loads, left, inverse=on_us < off_us, least_events=least)


def of_frames(loads: Sequence[InstanceLoad], on: int, off: int, delay_us: int | None, window_s: float) -> Expectation:
    """rx-max-frames and tx-max-frames. `delay_us`: what else ends the gathering; None: nothing does."""
    counts = [frames_bound(value, delay_us) for value in (on, off)]
    few, many = min(counts), max(counts)

    def left(load: InstanceLoad) -> float:
        gathered = load.packets / load.events
        if delay_us is None:
            within = load.packets * window_s * WINDOW_SHARE
        else:
            within = gathered * (1 + load.events * delay_us / 1e6)
        return load.packets / max(gathered, min(many, within))

    if delay_us == 0:
        needs = "a delay in microseconds above 0: at 0 µs no frames are waited for"
        return Expectation(ratio=1.0, needs=needs)
    least = SHOWABLE / (window_s * WINDOW_SHARE) if delay_us is None else (SHOWABLE - 1) / (delay_us / 1e6)
    return _expectation(loads, left, inverse=counts[0] == few, least_events=least)


def of_deferral(loads: Sequence[InstanceLoad], on: NapiSettings, off: NapiSettings, *, interrupts: bool) -> Expectation:
    """Deferral. `interrupts`: the events are interrupts, else polls. `loads` are those without it.

    While it lasts the timer polls, once in gro-flush-timeout; the interrupt comes back after so many empty polls. Those
    are more polls or fewer than without, which hangs on how packets come in bursts and on who else wants the CPU.
    """
    if on.defers == off.defers:
        return Expectation(ratio=None, either_way=True)
    defers = on if on.defers else off
    timer_s = (defers.gro_flush_timeout_ns or 0) / 1e9
    silence_s = timer_s * (defers.defer_hard_irqs or 0)

    def left(load: InstanceLoad) -> float:
        return load.events * exp(-load.events * silence_s) if interrupts else 1 / timer_s

    least = SHOWABLE / timer_s if not interrupts else (SHOWABLE - 1) / silence_s
    return replace(_expectation(loads, left, inverse=off.defers, least_events=least), either_way=not interrupts)


def frames_bound(frames: int, delay_us: int | None) -> float:
    """How many may gather. 0: no bound; but where no delay ends the gathering, no gathering (drivers/net/tun.c)."""
    return frames or (0 if delay_us is None else float("inf"))


def _expectation(
    loads: Sequence[InstanceLoad], left: Callable[[InstanceLoad], float], *, inverse: bool, least_events: float | None
) -> Expectation:
    """The ratio over all instances; and what the busiest would need, at its present packets per event."""
    busy = [load for load in loads if load.events > 0 and load.packets > 0]
    if not busy:
        return Expectation(ratio=1.0, needs=_needs(least_events, None))
    ratio = max(1e-3, sum(map(left, busy)) / sum(load.events for load in busy))
    expected = Expectation(ratio=1 / ratio if inverse else ratio)
    if expected.showable:
        return expected
    busiest = max(busy, key=lambda load: load.events)
    return replace(expected, needs=_needs(least_events, busiest))


def _needs(least_events: float | None, busiest: InstanceLoad | None) -> str | None:
    if least_events is None:
        return None
    # A few stray packets say nothing of how many come with an event: at least one is what surely is enough.
    gathered = max(1.0, busiest.packets / busiest.events) if busiest else 1
    enough, now = least_events * gathered * 1.01, busiest.packets if busiest else 0
    if busiest and enough <= now:  # the frames bound, or packets that come together anyway
        return "traffic in which packets come one by one: here they are gathered already"
    return f"about {_rounded(enough):,} packets/s on a queue; the busiest had {now:,.0f}"


def _rounded(figure: float) -> int:
    """Upwards to two digits: it is an estimate."""
    scale = 10 ** max(0, len(str(int(figure))) - 2)
    return int(-(-figure // scale) * scale)
