"""The loop around the controller: windows of an attachment that stands, what they make it decide, and what it learns.

It changes nothing itself: who owns the attachment asks it when it is time, switches, and tells it. Where loads of its
parts differ, there is a decision for each group of them (docs/adapt.md).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as but
from pathlib import Path
from typing import Self

from napctl.adapt.controller import SETTLE_SECONDS, WINDOW_SECONDS
from napctl.adapt.controller_state import State, start
from napctl.adapt.grouping import Grouping, Groups, regrouped
from napctl.adapt.pace import WindowSpan, followed, has_begun, has_ended, next_span
from napctl.adapt.preference import LatencyGoal
from napctl.adapt.together import begun_anew, decide_each
from napctl.adapt.ways import Way
from napctl.attach.attached_devices import server_identity
from napctl.attach.follow_step import NapiKey
from napctl.attach.learned_file import keep_learned, kept_learned
from napctl.attach.packet_cost import Cost
from napctl.attach.parts import Feeds, Part, joined_parts, parts_of, whole
from napctl.attach.window_probes import RENEW_SECONDS, ProbeReading, WindowProbes
from napctl.model.change import NapiChange, Transaction
from napctl.model.errors import BadInput
from napctl.probe import ProbeUnavailable
from napctl.probe.softirq_parts import MOST_PARTS

__all__ = ["Adapting", "Turn", "WantedWay", "unmeasured"]


DOZE_SECONDS = 1.0
"""Between two looks at a server that idles."""
KEEP_SECONDS = 300.0
"""Between two times that what was learned is written to disk."""
GROUPS_SECONDS = 1.0
"""Of a window at least where there are several groups: the samples are of all, and the lightest has the fewest."""
TOLD_SECONDS = 30.0
"""Within which looks are to tell who belongs to groups that another napctl has left; else they become one."""


@dataclass(frozen=True)
class WantedWay:
    """A way that is to be in force, of a part or (None) of all that is attached, and why."""

    way: Way
    why: str
    part: Part | None = None


@dataclass(frozen=True)
class Turn:
    """What came of a window."""

    wanted: tuple[WantedWay, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class _Group:
    """What is decided upon together, and the way that is in force there."""

    part: Part
    way: Way


@dataclass(frozen=True)
class _Glance:
    """At the packets alone."""

    at: float
    packets: int
    per_second: float

    def next(self, at: float, packets: int) -> "_Glance":
        return _Glance(at, packets, (packets - self.packets) / max(at - self.at, 1e-3))


class Adapting:
    """Of one attachment that has that way. `say` receives what is to be told once.

    Raises ProbeUnavailable if nothing can be measured.
    """

    def __init__(
        self, goal: LatencyGoal, transaction: Transaction, directory: Path, say: Callable[[str], None], way: Way
    ):
        self._goal, self._directory, self._say = goal, directory, say
        self._transaction = transaction
        self._all = whole(transaction)
        self._groups = _groups_left(transaction, way)
        self._feeds = Feeds()
        self._units: tuple[Part, ...] = (self._all,)
        """The smallest that can be told apart."""
        self._grouping = Grouping.together(1)
        learned, lost = kept_learned(directory, server_identity(transaction))
        if lost:
            say(lost)
        self._states: list[State] = [start(each.way, learned) for each in self._groups]
        """In the order of the groups."""
        self._probes = WindowProbes(transaction, say)
        self._divisible_at = 0.0
        """When it may be tried to tell groups apart, of time.monotonic()."""
        self._renewed_at = time.monotonic()
        self._span: WindowSpan | None = None
        """Of the window at hand; None: it is to begin."""
        self._began: ProbeReading | None = None
        """What was read then."""
        self._glance = _Glance(time.monotonic(), 0, 0.0)
        self._kept_at = time.monotonic()
        several = len(self._groups) > 1
        self._untold_until = self._kept_at + TOLD_SECONDS if several else None
        """Until then a look is awaited that tells who feeds whom, of groups that another napctl has left."""
        self._due_at = self._untold_until or self._kept_at + SETTLE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """What was learned is kept."""
        self._keep()
        self._probes.close()

    @property
    def ways(self) -> tuple[Way, ...]:
        """In force, of each group; that of most packets comes first."""
        return tuple(each.way for each in self._groups)

    def way_of(self, part: Part | None) -> Way:
        """That is in force there, which may be a piece of a group; without a part, where most packets are."""
        if part is None:
            return self._groups[0].way
        return next((each.way for each in self._groups if each.part.napis & part.napis), self._groups[0].way)

    @property
    def tries(self) -> bool:
        """Whether a way in force is on trial, so that nothing else should disturb what is measured."""
        return any(each.trial is not None for each in self._states)

    def seconds_left(self, now: float) -> float:
        """Until turn() is due, of time.monotonic()."""
        return max(0.0, self._due_at - now)

    def follow(self, transaction: Transaction) -> None:
        """It has other parts now, or has had a part made anew: what the window at hand has seen does not count. It is
        one group then, whose way is that of the one that had most packets."""
        self._transaction, self._all = transaction, whole(transaction)
        self._probes.follow(transaction)
        self._together()
        self._glance = self._glance_anew()
        self._begin_in(0.0)

    def told(self, feeds: Mapping[int, frozenset[int]]) -> bool:
        """Which NAPI instances have fed which process, by a look just now. Whether there was more than one group, and
        is not any more: something has to do with two of them."""
        self._feeds.told(feeds, self._all)
        units = parts_of(self._transaction, self._feeds.by_process)
        if units == self._units:
            return False
        if self._untold_until is not None:
            return not self._took_up(units)
        numbers = self._numbers(units)
        if numbers is None:
            self._together()
            return True
        self._units, self._grouping = units, Grouping(groups=numbers)
        return False

    def _numbers(self, units: Sequence[Part]) -> Groups | None:
        """Of the groups that they are of; None where one has to do with two."""
        places = [self._place_of(unit) for unit in units]
        return None if None in places else tuple(list(dict.fromkeys(places)).index(each) for each in places)

    def _place_of(self, unit: Part) -> int | None:
        """Of the group that has all of it."""
        for place, part in enumerate(each.part for each in self._groups):
            if unit.napis <= part.napis and unit.servers <= part.servers:
                return place
        return None

    def _took_up(self, units: tuple[Part, ...]) -> bool:
        """Go on with groups that another napctl has left, if that tells who belongs to them; else more looks are
        awaited. False: they cannot be told apart, and are one now."""
        parts = [joined_parts(unit for unit in units if unit.napis <= each.part.napis) for each in self._groups]
        told = all(part.napis == each.part.napis for part, each in zip(parts, self._groups, strict=True))
        if not told or len(parts) > MOST_PARTS:
            return True
        if not self._can_tell_apart(parts):
            return False
        self._groups = [_Group(part, each.way) for part, each in zip(parts, self._groups, strict=True)]
        numbers = self._numbers(units)
        assert numbers is not None
        self._units, self._grouping, self._untold_until = units, Grouping(groups=numbers), None
        self._begin_in(0.0)
        return True

    def switched(self, way: Way, part: Part | None = None) -> None:
        """What turn() asked for has been tried, and this way is in force there."""
        self._groups = [_Group(each.part, way) if part in (None, each.part) else each for each in self._groups]
        if self._untold_until is not None:
            self._together()
        self._begin_in(SETTLE_SECONDS)

    def turn(self) -> Turn | None:
        """When it is due: what a window says that has ended; None while it goes on, or where it says nothing."""
        now = time.monotonic()
        if now - self._kept_at >= KEEP_SECONDS:
            self._keep()
        if now - self._renewed_at >= RENEW_SECONDS:
            self._renew_full(now)
        if self._untold_until is not None:
            return self._awaited(now, self._untold_until)
        if not (self._all.napis and self._all.servers):
            self._due_at = now + DOZE_SECONDS
            return None
        before, self._glance = self._glance, self._glance.next(now, self._probes.packets())
        span = next_span(self._span, now, before.per_second, self._glance.per_second, tries=self.tries)
        self._due_at = now + (WINDOW_SECONDS if span else DOZE_SECONDS)
        if span is None or span != self._span:
            self._span, self._began = self._long_enough(span), None
        if span is None or self._began is None:
            self._begin(now)
        elif has_ended(span, now):
            before_it, self._began = self._began, self._probes.read()
            turn = self._decided(before_it, self._began, span.rested)
            if self._span is not None:  # else another begins, of other groups
                self._span = self._followed(now)
                self._begin(now)
            return turn
        return None

    def _begin(self, now: float) -> None:
        """The window at hand, if it is time: with the reading that the last one has ended with, or a new one."""
        if self._span is None or not has_begun(self._span, now):
            self._began = None
            self._probes.rest()
        elif self._began is None:
            self._span, self._began = but(self._span, began=now), self._probes.begin()

    def _awaited(self, now: float, until: float) -> Turn | None:
        """What comes of waiting for a look that tells groups apart."""
        self._due_at = until
        if now < until:
            return None
        self._together()
        return Turn((WantedWay(self._groups[0].way, "it is not known what each worker takes in: one way for all"),), ())

    def _followed(self, now: float) -> WindowSpan | None:
        """The next window: that of the group that is most in a hurry."""
        spans = [followed(now, each, self._goal) for each in self._states]
        return self._long_enough(min(spans, key=lambda each: each.began))

    def _long_enough(self, span: WindowSpan | None) -> WindowSpan | None:
        if span is None or len(self._groups) == 1:
            return span
        return but(span, seconds=max(GROUPS_SECONDS, span.seconds))

    def _glance_anew(self) -> _Glance:
        """Other counters, which cannot be compared with those before."""
        return _Glance(time.monotonic(), self._probes.packets(), self._glance.per_second)

    def _renew_full(self, now: float) -> None:
        self._renewed_at = now
        if self._probes.renew_full():
            self._span = None
        self._glance = self._glance_anew()

    def _decided(self, before: ProbeReading, now: ProbeReading, rested: float) -> Turn:
        together, windows = self._probes.between(before, now, [(each.part, each.way) for each in self._groups], rested)
        if not windows:
            return Turn((), ())
        decisions = decide_each(self._states, windows, self._goal)
        self._states = [each.state for each in decisions]
        several = len(self._groups) > 1
        wanted = tuple(
            WantedWay(decision.way, decision.reason, group.part if several else None)
            for decision, group in zip(decisions, self._groups, strict=True)
            if decision.way != group.way
        )
        notices = tuple(
            f"{group.part}: {decision.notice}" if several else decision.notice
            for decision, group in zip(decisions, self._groups, strict=True)
            if decision.notice
        )
        if wanted or self.tries:
            return Turn(wanted, notices)
        groups = self._regrouped(together)
        return Turn(groups.wanted, (*notices, *groups.notices))

    def _regrouped(self, cost: Cost) -> Turn:
        """Other groups, if their loads have asked for them long enough; ways that this makes necessary."""
        if time.monotonic() < self._divisible_at:
            return Turn((), ())
        apart = len(self._units) > 1
        units = self._units if apart else [Part(frozenset({key}), frozenset()) for key in sorted(self._all.napis)]
        loads = [_packets(cost, unit) / len(unit.napis) / cost.seconds for unit in units]
        if len(units) != len(self._grouping.groups):
            self._grouping = Grouping.together(len(units))
        grouping = regrouped(self._grouping, loads, cost.at)
        changed = grouping.groups != self._grouping.groups
        if changed and apart:
            numbers = sorted(set(grouping.groups))
            pairs = [*zip(units, grouping.groups, strict=True)]
            parts = [joined_parts(unit for unit, number in pairs if number == each) for each in numbers]
            return self._divided(sorted(parts, key=lambda part: -_packets(cost, part)), grouping, cost)
        if changed and len(set(grouping.groups)) > 1:
            self._say(
                "the loads of its NAPI instances differ, but which process takes in what cannot be told apart (one has "
                "to do with several of them): one decision for all"
            )
        self._grouping = grouping
        return Turn((), ())

    def _divided(self, parts: Sequence[Part], grouping: Grouping, cost: Cost) -> Turn:
        """Each part is a group from now on, with the way that most of its packets had."""
        groups, states, wanted = [], [], []
        for part in parts:
            origins = [
                (_packets(cost, Part(each.part.napis & part.napis, frozenset())), place)
                for place, each in enumerate(self._groups)
                if each.part.napis & part.napis
            ]
            first = self._groups[max(origins, key=lambda each: (each[0], -each[1]))[1]]
            groups.append(_Group(part, first.way))
            states.append(begun_anew(self._states[self._groups.index(first)], first.way))
            if any(self._groups[place].way != first.way for _, place in origins):
                wanted.append(WantedWay(first.way, "its loads are alike again", part if len(parts) > 1 else None))
        ways = {each.way for each in self._groups}
        if not self._can_tell_apart(parts):
            return Turn((WantedWay(self._groups[0].way, "one decision for all"),) if len(ways) > 1 else (), ())
        self._groups, self._states, self._grouping = groups, states, grouping
        self._begin_in(0.0)
        loads = ", ".join(
            f"{part}: {_packets(cost, part) / len(part.napis) / cost.seconds:,.0f} packets/s" for part in parts
        )
        apart, alike = f"loads differ, so there is a decision for each ({loads})", "loads are alike again: one for all"
        return Turn(tuple(wanted), (apart if len(parts) > 1 else alike,))

    def _can_tell_apart(self, parts: Sequence[Part]) -> bool:
        """Whether they are told apart from now on; if not, all is one group, and no other ones are made for a while."""
        try:
            self._probes.tell_apart(parts)
        except (ProbeUnavailable, OSError) as error:  # or a full table of descriptors
            self._say(f"NAPI instances of unlike loads cannot be told apart: {error}; one decision for all")
            self._divisible_at = time.monotonic() + RENEW_SECONDS  # trying costs as much as succeeding
            self._together()
            return False
        return True

    def _together(self) -> None:
        """One group, with the way of the first."""
        self._probes.tell_apart(())
        way = self._groups[0].way
        if len(self._groups) > 1:
            self._states = [begun_anew(self._states[0], way)]
        self._groups = [_Group(self._all, way)]
        self._units = parts_of(self._transaction, self._feeds.by_process)
        self._grouping = Grouping.together(len(self._units))
        self._untold_until = None
        self._begin_in(0.0)

    def _begin_in(self, seconds: float) -> None:
        self._span = None
        self._due_at = time.monotonic() + seconds

    def _keep(self) -> None:
        self._kept_at = time.monotonic()
        try:
            keep_learned(self._directory, self._states[0].learned)
        except (OSError, BadInput) as error:
            self._say(f"what was learned cannot be kept: {error}")


def _groups_left(transaction: Transaction, way: Way) -> list[_Group]:
    """All of it, which has that way; or groups of NAPI instances with a way of their own, as they were left, that one
    first: who belongs to them is to be told."""
    napis: dict[Way, set[NapiKey]] = {way: set()}
    for change in transaction.changes:
        if isinstance(change, NapiChange) and change.after.gro_flush_timeout_ns is not None:
            its = Way(gro_flush_timeout_ns=change.after.gro_flush_timeout_ns or None)
            napis.setdefault(its, set()).add((change.netns, change.napi_id))
    several = [_Group(Part(frozenset(keys), frozenset()), its) for its, keys in napis.items() if keys]
    return several if len(several) > 1 else [_Group(whole(transaction), way)]


def unmeasured(goal: LatencyGoal) -> Way:
    """What is kept where nothing can be measured: the longest timer within the budget, else the shortest."""
    timers = [each for each in goal.ways if each.gro_flush_timeout_ns]
    kept = [each for each in timers if (each.gro_flush_timeout_ns or 0) <= goal.budget_ns]
    return kept[-1] if kept else timers[0]


def _packets(cost: Cost, part: Part) -> int:
    return sum(each.packets for key, each in cost.napis.items() if key in part.napis)
