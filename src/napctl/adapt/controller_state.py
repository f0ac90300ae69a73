"""What a controller knows from one window to the next: its way, what it tries, and what it does not try for a while."""

from msgspec.structs import replace

from napctl.adapt.learned import Learned
from napctl.adapt.reasons import Kind
from napctl.adapt.ways import Way, WayWindow
from napctl.model.value import Value

__all__ = [
    "BARRED_SECONDS",
    "LEFT_SECONDS",
    "LONGEST_BARRED_SECONDS",
    "NOTICE_SECONDS",
    "REST_SECONDS",
    "SAVED_SECONDS",
    "TRIAL_SHARE",
    "State",
    "TriedWay",
    "barred",
    "is_barred",
    "start",
]


REST_SECONDS = 10.0
"""Between changes, but for those that Kind says are made at once."""
BARRED_SECONDS = 600.0
"""How long what did not help is not tried again, the first time; each time after, it is twice as long,"""
LEFT_SECONDS = 60.0
"""as is how long a way is not returned to that was left as it broke the budget: it may have been the machine,"""
LONGEST_BARRED_SECONDS = 4_800.0
"""and never longer than that."""
TRIAL_SHARE = 0.025
"""Of the time goes into trials, in the long run,"""
SAVED_SECONDS = 15.0
"""and as much may be saved up: no more than 15 s + 2.5 % of 600 s, that is 5 % of any ten minutes."""
NOTICE_SECONDS = 60.0
"""Between two notices that no way keeps the budget."""


class Bar(Value, frozen=True, kw_only=True):
    """What is not tried until then, at one octave of load. Kept a while afterwards: the next time lasts longer."""

    octave: int
    way: Way
    until: float
    times: int
    in_need_too: bool
    """Not even where the budget is broken, since it breaks it too, or could not be made. Else it only saved nothing."""


class TriedWay(Value, frozen=True, kw_only=True):
    """A change that has not yet shown whether it helps."""

    kind: Kind
    origin: Way
    before: tuple[WayWindow, ...]
    """Windows under `origin`, up to the change: those that it is compared with."""
    windows: int = 0
    """Since, also those that show nothing."""


class State(Value, frozen=True, kw_only=True):
    """Of one controller: of a server, or of one NAPI instance of it. Times are seconds on its own clock."""

    way: Way
    learned: Learned
    clock: float = 0.0
    at: float | None = None
    """CLOCK_MONOTONIC of the last window."""
    last_octave: int | None = None
    recent: tuple[WayWindow, ...] = ()
    """Windows at this octave since the last change."""
    trial: TriedWay | None = None
    bars: tuple[Bar, ...] = ()
    alike_until: float = 0.0
    """No trial before, as the last one showed that ways hardly differ; at no load, lest each has its own,"""
    alike_p99_ns: float = 0.0
    """unless a broken budget asks for a cure, and the p99 is well above what it was then."""
    credit: float = SAVED_SECONDS
    """Seconds of trials that may be spent."""
    changes: tuple[float, ...] = ()
    """Within the last minute, and the last one."""
    noticed: float = -NOTICE_SECONDS

    @property
    def octave(self) -> int:
        """Of the load, once there was some."""
        assert self.last_octave is not None
        return self.last_octave

    @property
    def rested(self) -> bool:
        """Whether it may change without need."""
        return not self.changes or self.clock - self.changes[-1] >= REST_SECONDS


def start(way: Way, learned: Learned) -> State:
    """Where it begins: the way that is in force, which the goal should have."""
    return State(way=way, learned=learned)


def barred(state: State, way: Way, *, in_need_too: bool, seconds: float = BARRED_SECONDS) -> State:
    """That way is not tried at this load for a while: each time twice as long."""
    if state.last_octave is None:
        return state
    same = [each for each in state.bars if (each.octave, each.way) == (state.octave, way)]
    times = same[0].times + 1 if same else 0
    until = state.clock + min(seconds * 2 ** min(times, 10), LONGEST_BARRED_SECONDS)
    bar = Bar(octave=state.octave, way=way, until=until, times=times, in_need_too=in_need_too)
    return replace(state, bars=(*(each for each in state.bars if each not in same), bar))


def is_barred(state: State, way: Way, *, in_need: bool = False) -> bool:
    """Whether it is not tried at this load; `in_need`: not even as the budget is broken."""
    return any(
        (each.octave, each.way) == (state.last_octave, way)
        and state.clock < each.until
        and (each.in_need_too or not in_need)
        for each in state.bars
    )
