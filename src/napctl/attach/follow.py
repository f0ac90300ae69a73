"""Staying attached: follow a target through reloads, restarts and resets of its device, until told to stop.

Around a cheap check (follow_check.py, follow_devices.py) and a rare deep look (attach_target.py); follow_pace.py says
when which of them is due.
"""

import time
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace as but
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attach_target import attach_with, refuse_unfit, timer_without_trial
from napctl.attach.attachment import detach
from napctl.attach.follow_check import Pulse
from napctl.attach.follow_conflicts import Conflicts
from napctl.attach.follow_devices import Devices, PlacedNotice, Readable
from napctl.attach.follow_members import Members
from napctl.attach.follow_memory import Known, key_of, keys_of
from napctl.attach.follow_pace import PULSE_SECONDS, Pace
from napctl.attach.follow_step import Present, Step, cheap_step, next_step, resets_of
from napctl.attach.follow_sweep import FollowSweep
from napctl.attach.follow_trial import Trials
from napctl.attach.follow_way import FollowWay
from napctl.attach.follow_words import Tell, Words, counted, in_words
from napctl.attach.judge_target import JudgedTarget, who, why_not
from napctl.attach.objections import Objections
from napctl.attach.starving import starved_changes
from napctl.attach.switch_way import way_words
from napctl.attach.target import Target
from napctl.attach.timer_sweep import Detached
from napctl.change.guard import myself
from napctl.change.journal import Journal
from napctl.change.recovery import recover
from napctl.change.same_process import running
from napctl.change.takeover import leave, take_over
from napctl.change.transaction import amend, undisturbed
from napctl.kernel import processes
from napctl.kernel.priority import in_background
from napctl.model.change import (
    Change,
    EpollChange,
    Guard,
    NapiChange,
    Restored,
    SocketChange,
    Transaction,
)
from napctl.model.errors import NapctlError

__all__ = ["Stay"]


WAITING_SHARE = 0.01
"""Of one CPU that looking for a target takes of which no process runs."""
MOST_PAUSE_SECONDS = 30.0
"""After one error upon the other: 1, 2, 4 … s."""
EVENT_SECONDS = 0.2
"""Between two checks for the sake of an event, of which there may be many."""


class Stay:
    """One target, followed: who drives it (follow_many.py) calls turn() when that is due, let_go() or leave() at the
    end. Nothing of it is attached before the first turn(), but for what it is to adopt().

    `tell` receives a line for each event; `guard` is what restores everything if this process is killed; `entry`: as
    of a Keeper.
    """

    def __init__(
        self, target: Target, options: AttachOptions, guard: Guard, directory: Path, tell: Tell,
        *, entry: str = "", objections: Objections | None = None,
    ):  # fmt: skip
        self._target, self._options, self._directory = target, options, directory
        self._words = Words(tell)
        self._failures = 0
        """Turns that ended in an error, one after the other."""
        self._guard, self._keeper = guard, myself(entry)
        self.members = Members(target)
        self._pulse = Pulse(())
        self._pace = Pace()
        self._devices = Devices()
        self._transaction: Transaction | None = None
        self._recorded = True
        """Whether the journal has all of it, in the state in which it is: not if the disk was full amid a step."""
        self._way = FollowWay(options, directory, self._words)
        self._sweep = FollowSweep(options, directory, self._words.tell)
        self._known = Known(options)
        self._left_out = False
        self._trials = Trials()
        self._deaf_until = 0.0
        """To events, after one."""
        self._restored: list[Restored] = []
        self._resets: dict[tuple[int, int], NapiChange] = {}
        self._in_order: tuple[Transaction, Present, frozenset[int]] | None = None
        """By the last cheap check nothing was to be done about this, with that, for those."""
        self._conflicts = Conflicts(Objections() if objections is None else objections, target.text, self._words)

    @property
    def name(self) -> str:
        """Of its target, as it was asked for."""
        return self._target.text

    @property
    def attached(self) -> Transaction | None:
        """What is attached by now, as it is recorded."""
        return self._transaction

    @property
    def conflicts(self) -> int:
        """NAPI and epoll instances that are left to somebody else."""
        return self._conflicts.count

    def try_anew(self) -> None:
        """What was refused, or left to somebody else."""
        self._known.try_anew()
        self._pace.want(time.monotonic())

    def seconds_left(self, now: float) -> float:
        """Until turn() is due, of time.monotonic(), if nothing happens before."""
        if self._sweep.underway:
            return self._sweep.seconds_left(now)
        seconds = self._pace.seconds_left(now)
        if not self._pace.is_put_off(now):
            seconds = min(seconds, self._way.seconds_left(now))
        deaf = self._deaf_until - now
        return min(seconds, deaf) if deaf > 0 else seconds

    def sources(self, now: float) -> tuple[Readable, ...]:
        """What can be read when take_notices() is to be called: something may have happened to an attached device."""
        return () if now < self._deaf_until else self._devices.sources

    def take_notices(self) -> None:
        """What has happened to an attached device makes turn() due."""
        if self._read_notices():
            now = time.monotonic()
            self._pace.pulse_by(now)
            self._deaf_until = now + EVENT_SECONDS

    def _read_notices(self) -> bool:
        """Whether anything has happened to an attached device."""
        try:
            notices = self._devices.notices()
        except (NapctlError, OSError) as error:
            self._words.say(in_words(error))
            self._devices.follow(())  # to be opened anew by the next check
            self._conflicts.heed_nobody_knows_what()
            return False
        self._heed(notices)
        if notices:
            self._pace.want(time.monotonic(), churn=True)  # what it has undone is mended without a look
        return bool(notices)

    def look_anew(self) -> None:
        """The machine has slept: everything may be otherwise, so the next turn is due now, and looks deeply."""
        self._failures = 0
        self._conflicts.heed_nobody_knows_what()
        self._pace.look_anew(time.monotonic())

    def adopt(self, transaction: Transaction) -> None:
        """Go on with an attachment that a napctl has left, as it is: no setting is written. The next turn looks deeply
        at it, and mends what is not as recorded; or changes what these options have otherwise.

        Raises what take_over() raises; nothing is followed then.
        """
        assert self._transaction is None
        with undisturbed(), Journal(self._directory) as journal:
            taken = take_over(journal, transaction, self._guard, self._keeper)
        self._transaction = taken
        self.members.adopt(taken)
        self._words.say_anew()
        way = self._way.adopt(taken)
        self._words.tell(
            f"took over {taken.title}: {counted(taken)}, with {way_words(way.gro_flush_timeout_ns)}", "adopt"
        )
        self._trials.begin(taken, now=False)
        self._words.tell_all()

    def change_guard(self, guard: Guard) -> None:
        """That one is to restore what is attached, from now on. Raises what take_over() raises."""
        self._guard = guard
        if self._transaction is not None:
            with undisturbed(), Journal(self._directory) as journal:
                self._transaction = take_over(journal, self._transaction, guard, self._keeper)

    def leave(self, *, kept: bool = False) -> None:
        """Stop following; what is attached stays so, without a keeper, until somebody detaches or adopts it.

        `kept`: with this process as its keeper, which will adopt it when it has executed itself anew.
        """
        if (transaction := self._transaction) is not None and not kept:
            with undisturbed(), Journal(self._directory) as journal:
                leave(journal, transaction)
        self._transaction = None
        self.let_go()

    def let_go(self) -> list[Restored]:
        """Put everything back; what became of each setting that was put back since this was last called.

        Raises what detach() does; it can be repeated then.
        """
        try:
            self._let_go()
        finally:
            self._words.tell_all()
        return self.take_restored()

    def take_restored(self) -> list[Restored]:
        """What became of each setting that was put back since the last time."""
        restored, self._restored = self._restored, []
        return restored

    def turn(self) -> bool:
        """Check, look if that is due, and do what is to be done. Whether there is anything left to follow: False once
        the target has ended and cannot come back under its name, or somebody else has detached it."""
        if self._pace.is_put_off(time.monotonic()):
            return True
        try:
            goes_on = self._try_timers() and self._adapt()
            if not goes_on or self._sweep.underway or self._pace.seconds_left(time.monotonic()):
                return goes_on
            goes_on = self._check() and self._read_trial()
            if self._transaction is not None and not self._transaction.changes:
                self._let_go()  # nothing of it fits any more: it waits to be attached anew
            if goes_on and self._pace.due(time.monotonic()):
                if self._waits_for_another_sweep():
                    self._pace.put_off(time.monotonic() + PULSE_SECONDS)
                else:
                    goes_on = self._look()
        except (NapctlError, OSError) as error:
            self._words.say(in_words(error), "retry")
            self._pace.put_off(time.monotonic() + min(2.0**self._failures, MOST_PAUSE_SECONDS))
            self._failures += 1
            return True
        finally:
            self._words.tell_all()
        self._failures = 0
        return goes_on

    def _check(self) -> bool:
        """The cheap part: what has gone is forgotten, and what is out of order at the devices mended at once.

        Whether it is still ours to follow.
        """
        began = time.process_time()
        with in_background():
            difference = self._pulse.take()
        self._pace.pulsed(time.monotonic(), time.process_time() - began - self._pulse.listing_seconds)
        gone = bool(difference.ended) and self._pulse.all_gone
        if difference.connected or gone or (difference.born and self._options.steer):
            self._pace.want(time.monotonic())
        elif difference.changed:
            self._pace.want(time.monotonic(), churn=True)
        if (transaction := self._transaction) is None:
            if not self._recorded:
                with undisturbed(), Journal(self._directory) as journal:
                    self._recover(journal)
            return True
        present, members = self._present(transaction), self._pulse.members
        if self._recorded and self._in_order == (transaction, present, members):
            return True
        step = cheap_step(transaction, present, members, self._conflicts.left)
        if self._is_left(step):
            step = cheap_step(transaction, present, members, self._conflicts.left)
            self._pace.want(time.monotonic())  # what it feeds is not to be attached either
        self._conflicts.see(transaction, present)
        if not step and self._recorded:
            self._in_order = transaction, present, members
            return True
        if len([each for each in step.forget if isinstance(each, NapiChange)]) > len(step.more):
            self._pace.want(time.monotonic())  # as many NAPI instances as before are not to be found
        with undisturbed(), Journal(self._directory) as journal:
            if self._others(journal, transaction) is None:
                return False
            self._amend(journal, transaction, step)
        return True

    def _look(self) -> bool:
        """The deep part. Whether there is anything left to follow."""
        began = time.process_time()
        nobody_waits = self._transaction is not None and not self._pace.urgent
        with in_background() if nobody_waits else nullcontext():
            pids = processes.pids()  # before the look: what comes meanwhile is a difference
            members = self.members.find()
            by_name = self._target.kind == "name"
            self._pulse = Pulse(members, self._known.settled, pids=pids, by_name=by_name)
            now = self._known.examined(self.members.examined, self._transaction) if members else None
        took = time.process_time() - began
        self._conflicts.look(now.found if now is not None else None)
        if now is None:
            goes_on = self._await_members()
        else:
            goes_on = self._attach(now) if self._transaction is None else self._follow(self._transaction, now)
        moment = time.monotonic()
        self._pace.looked(moment, took)
        if now is None:
            self._pace.again_at(moment + max(PULSE_SECONDS, took / WAITING_SHARE))
        if (again := self._known.next_try()) is not None:
            self._pace.again_at(again)
        return goes_on

    def _await_members(self) -> bool:
        self._let_go()
        if self._target.kind == "pid":
            self._words.say(f"{self._target.text} has ended")
            return False
        why = self.members.why
        self._words.say(f"waiting: {why}" if why else f"waiting for {self._target.text}: it is not running")
        return True

    def _attach(self, now: JudgedTarget) -> bool:
        if not now.choice.empty:
            with undisturbed(), Journal(self._directory) as journal:
                self._recover(journal)
                now = self._known.without_held(now, journal.live(), None)
                now = self._known.without_left(now, self._conflicts.left, None)
                if not now.choice.empty:
                    return self._attach_chosen(journal, now)
        self._words.say(f"waiting: {who(now.found)}: {why_not(now.found, now.verdicts)}")
        return True

    def _recover(self, journal: Journal) -> None:
        """Also what is left of an attach of ours, or of a trial, that could not be undone: to others it is followed."""
        members, keepers = {each.pid for each in self.members.known}, (self._keeper, myself())
        ours = [each for each in journal.live() if each.keeper in keepers and each.pid in members]
        detach(journal, [each for each in ours if each.state in ("changing", "attached")])
        for orphan, _ in recover(journal):
            self._words.tell(f"put back what was left of {orphan.title}", "restore")
        self._recorded = True

    def _attach_chosen(self, journal: Journal, now: JudgedTarget) -> bool:
        """Where timers are to be tried before, that only begins. Whether it is ours to follow."""
        self._recorded = False
        keys = keys_of(now.choice.instances, now.choice.sockets)
        try:
            refuse_unfit(journal, now)
            timer = timer_without_trial(self._options) or self._sweep.choice
            if timer is None:
                self._sweep.begin(now, lambda: self._guard)
                return True
            attached = attach_with(
                journal, now, self._options, timer,
                guard=self._guard, keeper=self._keeper, leave_out=self._leave_out,
            )  # fmt: skip
        except NapctlError as error:
            self._known.refuse(keys, str(error))
            raise
        self._transaction, self._recorded = attached.transaction, True
        self._way.begin(attached.transaction, attached.timer.gro_flush_timeout_ns)
        self._words.say_anew()
        self._settle(now)
        self._words.tell(
            f"attached {who(now.found)}: {counted(attached.transaction)}, in {attached.attach_seconds * 1000:.0f} ms",
            "attach",
        )
        if self._options.timer_ns is None and self._options.goal is None:
            chosen = f"chose {way_words(attached.timer.gro_flush_timeout_ns)}"
            self._words.tell(f"{chosen}: {attached.timer.why}" if attached.timer.why else chosen, "adapt")
        for warning in attached.warnings:
            self._words.tell(warning)
        self._follow_devices(attached.transaction)
        self._begin_trial(attached.transaction)
        return True

    def _waits_for_another_sweep(self) -> bool:
        """Whether it could only begin one of its own, while another target's is under way."""
        return self._transaction is None and timer_without_trial(self._options) is None and self._sweep.must_wait

    def _try_timers(self) -> bool:
        """The next one, if a sweep is under way; after the last one it is attached. Whether it is ours to follow:
        somebody may have detached what is only tried."""
        try:
            over = self._sweep.turn()
        except Detached as error:
            self._recorded = True  # nothing is left of it
            self._words.say(str(error))
            return False
        except (NapctlError, OSError) as error:
            self._known.refuse(self._sweep.of, in_words(error))
            self._pace.want(time.monotonic())
            raise
        try:
            return not over or self._look()
        finally:
            self._sweep.choice = None  # by later traffic another one may be better

    def _follow(self, transaction: Transaction, now: JudgedTarget) -> bool:
        """Whether it is still ours to follow: somebody may have detached it."""
        self._is_left(self._step(transaction, now))
        now = self._known.without_left(now, self._conflicts.left, transaction)
        if self._step(transaction, now):
            with undisturbed(), Journal(self._directory) as journal:
                others = self._others(journal, transaction)
                if others is None:
                    return False
                now = self._known.without_held(now, others, transaction)
                if not self._amend(journal, transaction, self._step(transaction, now)):
                    # The NAPI instance of what was refused is not to be kept for nobody.
                    now = self._known.examined(self.members.examined, self._transaction)
                    assert self._transaction is not None
                    self._amend(journal, self._transaction, self._step(self._transaction, now))
        self._settle(now)
        return True

    def _settle(self, now: JudgedTarget) -> None:
        self._known.settle(now)
        self._pulse.settled = self._known.settled
        self._way.look(now)

    def _step(self, transaction: Transaction, now: JudgedTarget) -> Step:
        adapts = self._options.goal is not None
        present, left = self._present(transaction), self._conflicts.left
        return next_step(transaction, now, self._way.suspension, present, adapts=adapts, left=left)

    def _present(self, transaction: Transaction) -> Present:
        self._follow_devices(transaction)
        return but(self._devices.present(), resets=self._resets) if self._resets else self._devices.present()

    def _follow_devices(self, transaction: Transaction) -> None:
        napis = (each for each in transaction.changes if isinstance(each, NapiChange))
        self._heed(self._devices.follow({(each.netns, each.ifindex) for each in napis}))

    def _is_left(self, step: Step) -> bool:
        """Whether something that was lost is left to somebody else, from now on."""
        if step.lost:
            self._read_notices()  # nobody has listened since the last one: what a reset took is nobody's objection
        return self._conflicts.leave(step)

    def _heed(self, notices: Collection[PlacedNotice]) -> None:
        self._words.tell_notices(notice for _, notice in notices)
        self._conflicts.heed(notices)

    def _others(self, journal: Journal, transaction: Transaction) -> list[Transaction] | None:
        """What else is in force; None if this is not any more."""
        live = journal.live()
        if all(each.number != transaction.number for each in live):
            self._transaction = None
            self._words.say(f"{transaction.title}: somebody else has detached it")
            return None
        return [each for each in live if each.number != transaction.number]

    def _amend(self, journal: Journal, transaction: Transaction, step: Step) -> bool:
        """Make a step, one change after the other; whether none was left out because the kernel refuses it."""
        self._left_out = False
        if not running(transaction) and self.members.known:
            first = self.members.known[0]
            transaction = replace(transaction, pid=first.pid, name=first.name, started_ticks=first.started_ticks)
        self._recorded = False
        self._transaction = amend(
            journal, transaction, more=step.more, without=step.without, forget=step.forget, leave_out=self._leave_out
        )
        self._recorded = True
        self._resets |= resets_of(step.forget)
        self._conflicts.made(step.more)
        for line, kind in step.words.items():
            self._words.tell(line, kind)
        if any(isinstance(each, EpollChange | SocketChange) for each in step.more):
            self._begin_trial(self._transaction)
        self._way.follow(self._transaction)
        return not self._left_out

    def _leave_out(self, change: Change, error: NapctlError) -> bool:
        """One worker that cannot be set does not keep the others from being attached."""
        if (key := key_of(change)) is None:
            return False
        self._left_out = True
        self._known.refuse([key], str(error))
        self._words.say(f"{change.where} cannot be attached: {error}", "retry")
        return True

    def _let_go(self) -> None:
        self._known.settled = self._pulse.settled = frozenset()
        self._sweep.end()
        self._trials.end()
        self._way.end()
        if (transaction := self._transaction) is not None:
            with undisturbed(), Journal(self._directory) as journal:
                self._restored += detach(
                    journal, [each for each in journal.live() if each.number == transaction.number]
                )
        elif not self._recorded:
            with undisturbed(), Journal(self._directory) as journal:
                self._recover(journal)
        self._transaction = None
        self._resets.clear()
        self._conflicts.end()
        self._devices.follow(())

    def _adapt(self) -> bool:
        """Into another way, if one is wanted. Whether it is still ours to follow."""
        transaction = self._transaction
        if transaction is None:
            return True
        if self._way.is_another_wanted():
            with undisturbed(), Journal(self._directory) as journal:
                if self._others(journal, transaction) is None:
                    return False
                self._transaction = transaction = self._way.switch(journal, transaction)
        self._trials.catch_up(transaction, polls=self._way.polls, settled=self._way.settled)
        self._pace.pulse_by(self._trials.until)
        return True

    def _begin_trial(self, transaction: Transaction) -> None:
        self._trials.begin(transaction, now=self._way.settled)
        self._pace.pulse_by(self._trials.until)

    def _read_trial(self) -> bool:
        """What starves is taken back at once. Whether it is still ours to follow."""
        transaction = self._transaction
        if transaction is None or (now := self._trials.read()) is None:
            return True
        if not now.starving or self._options.force:
            return True
        starved = list(starved_changes(transaction, self.members.examined(0), now.starving))
        for change in starved:
            if (key := key_of(change)) is not None:
                self._known.harm(key, now.why)
        with undisturbed(), Journal(self._directory) as journal:
            if self._others(journal, transaction) is None:
                return False
            step = Step(without=starved)
            if starved:
                step.say(f"detached {', '.join(change.where for change in starved)}: {now.why}", "detach")
            self._amend(journal, transaction, step)
        return True
