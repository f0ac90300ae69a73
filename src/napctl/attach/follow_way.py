"""In which way a followed attachment takes its packets, and bringing it into another."""

import time
from pathlib import Path

from napctl.adapt.preference import LatencyGoal
from napctl.adapt.ways import INTERRUPTS, Way
from napctl.attach.adapting import Adapting, WantedWay, unmeasured
from napctl.attach.attach_options import AttachOptions
from napctl.attach.follow_words import Words, in_words
from napctl.attach.judge_target import JudgedTarget
from napctl.attach.parts import Part, feeds_of, whole
from napctl.attach.switch_way import has_one_way, in_force, in_way, switch_way, wanted_of, way_words
from napctl.change.journal import Journal
from napctl.change.one_change import may_have_either
from napctl.kernel.priority import in_background
from napctl.model.change import Change, NapiChange, Switch, Transaction
from napctl.model.errors import NapctlError
from napctl.model.suspension import Suspension
from napctl.probe import ProbeUnavailable

__all__ = ["FollowWay"]


AGAIN_SECONDS = 10.0
"""Until what went wrong is tried again."""


class FollowWay:
    """Of one target, from one attachment to the next: begin() and end() stand around each."""

    def __init__(self, options: AttachOptions, directory: Path, words: Words):
        self._options, self._directory, self._words = options, directory, words
        self._adapting: Adapting | None = None
        self._wanted: list[WantedWay] = []
        """Other ways, one after the other."""
        self._to_adapt: Transaction | None = None
        """What is to be adapted, which went wrong; it is tried again"""
        self._unsettled: dict[Part | None, Way] = {}
        """What was switched to, by part (None: all), where some objects may still have what was before; that is tried
        again"""
        self._again_at = 0.0
        """then, of time.monotonic()."""
        self.suspension = options.suspension
        """What is in force, of the group that has most packets, and what whoever is new gets."""

    @property
    def polls(self) -> bool:
        """Whether all that is attached is meant to poll."""
        several = self._adapting is not None and any(each == INTERRUPTS for each in self._adapting.ways[1:])
        return self.suspension.prefer_busy_poll and not several

    @property
    def settled(self) -> bool:
        """Whether who is attached is meant to poll, and that is not on trial."""
        return self.polls and not (self._adapting and self._adapting.tries)

    def become(self, options: AttachOptions) -> None:
        """These are in force, before it is attached or taken over."""
        self._options, self.suspension = options, options.suspension

    def begin(self, transaction: Transaction, gro_flush_timeout_ns: int) -> None:
        """It was attached with that timer; 0: with interrupts, from which it adapts. Without the probes it cannot, and
        one timer is kept."""
        self.suspension = in_way(self._options.suspension, gro_flush_timeout_ns or None)
        if (goal := self._options.goal) is None:
            return
        self._adapt(goal, transaction)

    def adopt(self, transaction: Transaction) -> Way:
        """It stands, as these options or others have made it: which way it has. That goes on, unless the options have
        another one, or other settings for it."""
        self.suspension = in_force(transaction, self._options.suspension)
        way = self._way
        if self._options.goal is not None:
            self._adapt(self._options.goal, transaction)
        else:
            timer_ns = self._options.timer_upon_ns(way.gro_flush_timeout_ns)
            if timer_ns != way.gro_flush_timeout_ns:
                self._wanted = [WantedWay(Way(gro_flush_timeout_ns=timer_ns), "asked for")]
        if not self._wanted and self.suspension != in_way(self._options.suspension, way.gro_flush_timeout_ns):
            self._wanted = [WantedWay(way, "other settings are asked for")]
        elif has_one_way(transaction):
            if any(map(may_have_either, transaction.changes)):
                self._unsettled, self._again_at = {None: way}, time.monotonic()
        elif not self._wanted and not self._can_go_on_apart(transaction):
            self._wanted = [WantedWay(way, "one for all, as its parts cannot be decided upon apart")]
        return way

    def _can_go_on_apart(self, transaction: Transaction) -> bool:
        """Whether the groups that were left can stay, once a look has told who feeds whom."""
        if any(map(may_have_either, transaction.changes)):
            return False
        return self._to_adapt is not None or (self._adapting is not None and len(self._adapting.ways) > 1)

    @property
    def _way(self) -> Way:
        """That is in force."""
        return Way(gro_flush_timeout_ns=self.suspension.gro_flush_timeout_ns or None)

    def _adapt(self, goal: LatencyGoal, transaction: Transaction) -> None:
        self._to_adapt = None
        try:
            self._adapting = Adapting(goal, transaction, self._directory, self._words.say, self._way)
        except ProbeUnavailable as error:
            why = f"nothing can be measured, so nothing is adapted: {error.reason}"
            if self._way == INTERRUPTS:
                self._wanted = [WantedWay(unmeasured(goal), why)]
            else:
                self._words.say(why)
        except (NapctlError, OSError) as error:  # a device that goes just now, a full table of descriptors
            self._words.say(f"adapting begins later: {in_words(error)}", "retry")
            self._to_adapt = transaction
            self._again_at = time.monotonic() + AGAIN_SECONDS

    def end(self) -> None:
        """Nothing is attached any more."""
        self._wanted, self._to_adapt, self._unsettled = [], None, {}
        if self._adapting is not None:
            self._adapting.close()
            self._adapting = None

    def follow(self, transaction: Transaction) -> None:
        """It has other parts now."""
        if self._adapting is not None:
            if len(self._adapting.ways) > 1:
                self._one_for_all("it has other parts now")
            self._adapting.follow(transaction)
        if self._to_adapt is not None:
            self._to_adapt = transaction

    def look(self, now: JudgedTarget) -> None:
        """A look has told which NAPI instances feed which worker."""
        if self._adapting is not None and self._adapting.told(feeds_of(now.choice)):
            self._one_for_all("it is known no more what each worker takes in")

    def _one_for_all(self, why: str) -> None:
        """With the way of the group that had most packets."""
        self._wanted = [WantedWay(self._way, f"{why}: one way for all")]

    def seconds_left(self, now: float) -> float:
        """Until is_another_wanted() is to be asked, of time.monotonic()."""
        if self._wanted:
            return 0.0
        if self._to_adapt is not None:
            return max(0.0, self._again_at - now)
        again = max(0.0, self._again_at - now) if self._unsettled else float("inf")
        return again if self._adapting is None else min(again, self._adapting.seconds_left(now))

    def is_another_wanted(self) -> bool:
        """Whether switch() is to be called; to be asked when it is time."""
        due = time.monotonic() >= self._again_at
        if due and self._to_adapt is not None and self._options.goal:
            self._adapt(self._options.goal, self._to_adapt)
        if due and not self._wanted:
            self._wanted = [WantedWay(way, "", part) for part, way in self._unsettled.items()]
        adapting = self._adapting
        if self._wanted or adapting is None or adapting.seconds_left(time.monotonic()):
            return bool(self._wanted)
        with in_background():
            turn = adapting.turn()
        if turn is None:
            return False
        for notice in turn.notices:
            self._words.tell(notice)
        self._wanted = list(turn.wanted)
        self._take_first()
        return bool(self._wanted)

    def switch(self, journal: Journal, transaction: Transaction) -> Transaction:
        """Into the way that is wanted, the first of several, as it is recorded then. Raises what switch_way() does: it
        is wanted still."""
        wanted, before = self._wanted[0], self._way_of(self._wanted[0].part)
        way, part, why = wanted.way, wanted.part, wanted.why
        suspension = in_way(self._options.suspension, way.gro_flush_timeout_ns)
        to = way_words(way.gro_flush_timeout_ns) + (f" for {part}" if part else "")
        switch = Switch(unix_ns=time.time_ns(), to=to, why=why)
        done = switch_way(journal, transaction, suspension, switch if why else None, part)
        self._wanted = self._wanted[1:]
        changes = [each for each in done.transaction.changes if part is None or part.has(each)]
        self._note_unsettled(done.transaction, wanted, unsure=any(map(may_have_either, changes)))
        given = wanted_of(done.transaction.changes, suspension)
        made = any(_has(each, given) for each in changes)
        other = before != way or (part is None and self.suspension != suspension)
        if made and (other or (why and done.transaction.changes != transaction.changes)):
            self._words.tell(f"changed to {to}" + (f": {why}" if why else ""), "adapt")
        if made and part is None:
            self.suspension = suspension
        for line in done.left:
            self._words.say(line)
        if self._to_adapt is not None:
            self._to_adapt = done.transaction
        if self._adapting is not None and (why or (made and way != before)):
            self._adapting.switched(way if made else before, part)
            self._take_first()
        return done.transaction

    def _note_unsettled(self, transaction: Transaction, done: WantedWay, *, unsure: bool) -> None:
        """After a switch: what was to be tried again is so still where this switch was not."""
        if done.part is None:
            self._unsettled = {}
        else:
            everything = whole(transaction)
            rest = [((part or everything).without(done.part), way) for part, way in self._unsettled.items()]
            self._unsettled = {part: way for part, way in rest if part.napis or part.servers}
        if unsure:
            self._unsettled[done.part] = done.way
        self._again_at = time.monotonic() + AGAIN_SECONDS

    def _way_of(self, part: Part | None) -> Way:
        return self._way if self._adapting is None else self._adapting.way_of(part)

    def _take_first(self) -> None:
        """Of several groups: whoever is new gets the way of the one with most packets."""
        if self._adapting is not None and len(self._adapting.ways) > 1:
            self.suspension = in_way(self._options.suspension, self._adapting.ways[0].gro_flush_timeout_ns)


def _has(change: Change, wanted: Suspension) -> bool:
    """Whether that is a NAPI instance that is as wanted, for sure."""
    return isinstance(change, NapiChange) and change.after == wanted.napi and not may_have_either(change)
