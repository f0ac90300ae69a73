"""What protection does next: up a ladder, step by step, while packets flood a CPU; down when the flood is over.

Pure: times are handed in, in s of one clock. docs/overload.md has these constants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from napctl.model.overload import LATE_PER_SECOND
from napctl.model.units import figure

__all__ = [
    "AGAIN_SECONDS",
    "APART_SECONDS",
    "CALM_SECONDS",
    "CALM_SHARE",
    "CAUSE_SECONDS",
    "FEW_DROPS_SHARE",
    "KINDS",
    "LEAST_PACKETS_PER_SECOND",
    "RING_DROP_SHARE",
    "SETTLE_SECONDS",
    "STARVED_SECONDS",
    "WINDOW_SECONDS",
    "Flood",
    "Ladder",
    "Move",
    "StepKind",
    "next_move",
    "not_made",
]


StepKind = Literal["threads", "nice", "storm control"]
KINDS: tuple[StepKind, ...] = get_args(StepKind)
"""From below: NAPI threads instead of softirqs, these threads behind all others, a limit on what nobody here wants."""

WINDOW_SECONDS = 0.25
"""Between two looks. Each tells of the load of the last half second: one that shows overload is no burst."""
SETTLE_SECONDS = 0.5
"""After a step, until a look tells what that has done."""
LEAST_PACKETS_PER_SECOND = 1000.0
"""A device that is offered less floods nothing."""
CALM_SHARE = 0.7
"""Of the offered load that caused the first step: what is offered has to stay below,"""
CALM_SECONDS = 10.0
"""for so long, before all steps are taken back."""
CAUSE_SECONDS = 2.0
"""After the first step: until then the most that is offered counts as its cause, as the first look at a flood, or a
driver that refreshes its counters once a second, tells of a part of it."""
APART_SECONDS = 10.0
"""Between two changes of one kind on the same NAPI instances, there and back counted alike. What starves is taken back
sooner."""
STARVED_SECONDS = 1.0
"""After threads were made nice, until a look tells whether they get what their packets need."""
AGAIN_SECONDS = 600.0
"""After what starved was taken back, until it may be made again."""
RING_DROP_SHARE = 0.05
"""Of the offered packets: where the ring drops more, although the threads are nice, storm control is worth its cost."""
FEW_DROPS_SHARE = 0.01
"""Where it is not known what caused the steps, the ring may drop so much when the flood is over."""


@dataclass(frozen=True)
class Flood:
    """What was seen at a look, of some NAPI instances of a device that share their CPUs."""

    offered_per_second: float = 0.0
    """Packets that came to the device, with those that its ring dropped."""
    dropped_per_second: float = 0.0
    """Those: they cost the CPU nothing."""
    is_whole: bool = True
    """False: the ring may have dropped packets that nobody counts, as who empties it never came to its end; or a
    counter fell."""
    late_per_second: float = 0.0
    """Packets of the machine that were dropped after the stack had worked on them."""
    overload: str = ""
    """Why one of their CPUs is overloaded, with figures; empty: none is."""
    starved: str = ""
    """Why their threads get too little of it at nice 19, or, without that, would; empty: nothing is known of it."""

    @property
    def drop_share(self) -> float:
        """Of the offered packets, 0 … 1."""
        return self.dropped_per_second / self.offered_per_second if self.offered_per_second else 0.0


@dataclass(frozen=True)
class Ladder:
    """Where protection of these instances stands."""

    made: tuple[StepKind, ...] = ()
    """Steps in force, the first one first."""
    cause_per_second: float | None = None
    """Offered load that caused the first of them, at its most; None: not known, as another process made it."""
    calm_since: float | None = None
    changed_at: Mapping[StepKind, float] = field(default_factory=dict)
    """When a kind of step was last made, or taken back, or tried in vain."""
    barred_until: Mapping[StepKind, float] = field(default_factory=dict)
    """Steps that starved their threads, or would have."""

    @property
    def emptied(self) -> "Ladder":
        """The same with no step made."""
        return Ladder(changed_at=self.changed_at, barred_until=self.barred_until)


@dataclass(frozen=True)
class Move:
    """A change that is to be made now."""

    steps: tuple[StepKind, ...]
    """The next step up, or all that are to be taken back, the last one first."""
    up: bool
    why: str
    """With figures."""
    starves: bool = False
    """What is taken back starved its threads; a step up is passed over, as it would."""


def next_move(ladder: Ladder, seen: Flood, now: float, steps: Sequence[StepKind]) -> tuple[Ladder, Move | None]:
    """After one more look: what is to be done, and the ladder when that is done.

    `steps`: those that are possible there and allowed, in the order of KINDS.
    """
    ladder = replace(ladder, cause_per_second=_cause(ladder, seen, now))
    ladder = replace(ladder, calm_since=_calm_since(ladder, seen, now))
    if _is_starved(ladder, seen, now):
        return _given_up(ladder, now), Move(("nice",), False, seen.starved, starves=True)
    up = next((each for each in steps if each not in ladder.made and not _is_barred(ladder, each, now)), None)
    if up is not None and _is_flooded(ladder, seen, now) and _is_settled(ladder, now) and _is_apart(ladder, (up,), now):
        if up == "nice" and seen.starved:
            return _barred(ladder, now + APART_SECONDS), Move((up,), True, seen.starved, starves=True)
        return _climbed(ladder, up, seen, now), Move((up,), True, _why_up(ladder, seen))
    is_over = ladder.calm_since is not None and now - ladder.calm_since >= CALM_SECONDS
    if ladder.made and is_over and _is_apart(ladder, ladder.made, now):
        back = tuple(reversed(ladder.made))
        left = replace(ladder, changed_at={**ladder.changed_at, **dict.fromkeys(back, now)}).emptied
        return left, Move(back, False, _why_down(ladder, seen))
    return ladder, None


def not_made(before: Ladder, climbed: Ladder) -> Ladder:
    """The ladder if a step was refused, or its being taken back: the same kind is tried again only when it might have
    been changed again."""
    return replace(before, changed_at=climbed.changed_at)


def _climbed(ladder: Ladder, up: StepKind, seen: Flood, now: float) -> Ladder:
    return replace(
        ladder,
        made=(*ladder.made, up),
        cause_per_second=ladder.cause_per_second if ladder.made else seen.offered_per_second,
        calm_since=None,
        changed_at={**ladder.changed_at, up: now},
    )


def _given_up(ladder: Ladder, now: float) -> Ladder:
    """Without the threads' nice value, which is not to come back soon."""
    left = _barred(replace(ladder, changed_at={**ladder.changed_at, "nice": now}), now + AGAIN_SECONDS)
    made = tuple(each for each in ladder.made if each != "nice")
    return replace(left, made=made) if made else left.emptied


def _barred(ladder: Ladder, until: float) -> Ladder:
    return replace(ladder, barred_until={**ladder.barred_until, "nice": until})


def _cause(ladder: Ladder, seen: Flood, now: float) -> float | None:
    first_at = ladder.changed_at.get(ladder.made[0], float("-inf")) if ladder.made else float("-inf")
    if ladder.cause_per_second is None or now - first_at > CAUSE_SECONDS:
        return ladder.cause_per_second
    return max(ladder.cause_per_second, seen.offered_per_second)


def _calm_since(ladder: Ladder, seen: Flood, now: float) -> float | None:
    if not ladder.made or not _is_calm(ladder, seen):
        return None
    return now if ladder.calm_since is None else ladder.calm_since


def _is_calm(ladder: Ladder, seen: Flood) -> bool:
    if seen.overload or not seen.is_whole:
        return False
    if ladder.cause_per_second is None:
        return seen.drop_share < FEW_DROPS_SHARE
    return seen.offered_per_second < CALM_SHARE * ladder.cause_per_second


def _is_starved(ladder: Ladder, seen: Flood, now: float) -> bool:
    made_at = ladder.changed_at.get("nice", float("-inf"))
    return "nice" in ladder.made and bool(seen.starved) and now - made_at >= STARVED_SECONDS


def _is_barred(ladder: Ladder, step: StepKind, now: float) -> bool:
    return now < ladder.barred_until.get(step, float("-inf"))


def _is_flooded(ladder: Ladder, seen: Flood, now: float) -> bool:
    """Whether a look asks for a step more."""
    if seen.offered_per_second < LEAST_PACKETS_PER_SECOND:
        return False
    return bool(seen.overload) or _drops_late(ladder, seen) or _drops_in_ring(ladder, seen, now)


def _drops_late(ladder: Ladder, seen: Flood) -> bool:
    """A thread that is not nice leaves the others half of the CPU: no overload, but much of its work is for nothing."""
    if "threads" not in ladder.made or "nice" in ladder.made or seen.late_per_second < LATE_PER_SECOND:
        return False
    return ladder.cause_per_second is None or seen.offered_per_second >= CALM_SHARE * ladder.cause_per_second


def _drops_in_ring(ladder: Ladder, seen: Flood, now: float) -> bool:
    is_last = "nice" in ladder.made or (bool(ladder.made) and _is_barred(ladder, "nice", now))
    return is_last and seen.drop_share > RING_DROP_SHARE


def _is_settled(ladder: Ladder, now: float) -> bool:
    return all(now - at >= SETTLE_SECONDS for at in ladder.changed_at.values())


def _is_apart(ladder: Ladder, steps: Sequence[StepKind], now: float) -> bool:
    return all(now - ladder.changed_at.get(each, float("-inf")) >= APART_SECONDS for each in steps)


# In words.


def _why_up(ladder: Ladder, seen: Flood) -> str:
    why = seen.overload
    if not why and _drops_late(ladder, seen):
        why = f"{figure(seen.late_per_second)}/s are dropped after the stack worked on them still"
    elif not why:
        why = f"the ring drops {seen.drop_share * 100:.0f} % of the packets"
    return f"{why}; {_packets(seen.offered_per_second)} offered"


def _why_down(ladder: Ladder, seen: Flood) -> str:
    now = f"{_packets(seen.offered_per_second)} offered"
    if ladder.cause_per_second is None:
        return f"{now}, next to none dropped for {CALM_SECONDS:.0f}s"
    cause = figure(ladder.cause_per_second)
    return f"{now}, for {CALM_SECONDS:.0f}s under {CALM_SHARE * 100:.0f} % of the {cause} that caused it"


def _packets(per_second: float) -> str:
    return f"{figure(per_second)} packets/s"
