"""Staying attached: follow a target through reloads, restarts and resets of its device, until told to stop.

Around a cheap check (follow_processes.py, follow_settings.py) and a rare deep look; follow_pace.py says when which of
them is due, and follow_step.py what is to be done then. What is attached: follow_transaction.py.
"""

import time
from pathlib import Path

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attach_target import refuse_unfit, timer_without_trial
from napctl.attach.follow_conflicts import RESETS, Conflicts
from napctl.attach.follow_devices import Readable
from napctl.attach.follow_memory import Known, keys_of
from napctl.attach.follow_mode import FollowedMode
from napctl.attach.follow_pace import PULSE_SECONDS
from napctl.attach.follow_processes import FollowedProcesses
from napctl.attach.follow_rings import step_without_rings
from napctl.attach.follow_settings import FollowedSettings
from napctl.attach.follow_step import Present, Step, cheap_step, next_step
from napctl.attach.follow_sweep import FollowSweep
from napctl.attach.follow_transaction import FollowedTransaction
from napctl.attach.follow_trial import Trials, starved_step
from napctl.attach.follow_way import FollowWay
from napctl.attach.follow_words import Tell, Words, in_words
from napctl.attach.judge_target import JudgedTarget, unfit_words, who
from napctl.attach.objections import Objections
from napctl.attach.target import Target
from napctl.attach.timer_sweep import Detached
from napctl.change.journal import Journal
from napctl.model.backoff import AT_A_TERMINAL, Pauses
from napctl.model.change import Guard, InstanceChange, IoUringChange, PollerChange, Restored, Transaction
from napctl.model.errors import NapctlError

__all__ = ["Stay"]


EVENT_SECONDS = 0.2
"""Between two checks for the sake of an event, of which there may be many."""


class Stay:
    """One target, followed: who drives it (follow_many.py) calls turn() when that is due, let_go() or leave() at the
    end. Nothing of it is attached before the first turn(), but for what it is to adopt().

    `tell` receives a line for each event; `guard` is what restores everything if this process is killed; `entry`: as
    of a Keeper. What fails, or is refused, is tried again after those pauses.
    """

    def __init__(
        self, target: Target, options: AttachOptions, guard: Guard, directory: Path, tell: Tell,
        *, entry: str = "", objections: Objections | None = None, pauses: Pauses = AT_A_TERMINAL,
    ):  # fmt: skip
        self._target = target
        self._words = Words(tell)
        self._known = Known(options, pauses)
        self._processes = FollowedProcesses(target, options, self._known)
        self.members, self._pace = self._processes.members, self._processes.pace
        self._attachment = FollowedTransaction(directory, guard, entry, self._known, self._words)
        self._conflicts = Conflicts(Objections() if objections is None else objections, target.text, self._words)
        self._settings = FollowedSettings(self._conflicts, self._words)
        self._way = FollowWay(options, directory, self._words)
        self._mode = FollowedMode(options, self._known, self._way, self._words)
        self._sweep = FollowSweep(options, directory, self._words.tell)
        self._trials = Trials()
        self._deaf_until = 0.0
        """To events, after one."""
        self._in_order: tuple[Transaction, Present, frozenset[int]] | None = None
        """By the last cheap check nothing was to be done about this, with that, for those."""

    @property
    def name(self) -> str:
        """Of its target, as it was asked for."""
        return self._target.text

    @property
    def attached(self) -> Transaction | None:
        """What is attached by now, as it is recorded."""
        return self._attachment.current

    @property
    def conflicts(self) -> int:
        """NAPI and epoll instances that are left to somebody else."""
        return self._conflicts.count

    # What it is told by who drives it.

    def adopt(self, transaction: Transaction) -> None:
        """Go on with an attachment that a napctl has left, as it is: no setting is written. The next turn looks deeply
        at it, and mends what is not as recorded; or changes what these options have otherwise.

        Raises what take_over() raises; nothing is followed then.
        """
        taken = self._attachment.adopt(transaction)
        self.members.adopt(taken)
        self._words.say_anew()
        self._mode.adopt(taken)
        self._words.tell_adopted(taken, self._way.adopt(taken).gro_flush_timeout_ns)
        self._trials.begin(taken, now=False)
        self._words.tell_all()

    def change_guard(self, guard: Guard) -> None:
        """That one is to restore what is attached, from now on. Raises what take_over() raises."""
        self._attachment.change_guard(guard)

    def try_anew(self) -> None:
        """What was refused, went wrong, or was left to somebody else."""
        self._processes.try_anew()
        self._pace.want(time.monotonic())

    def look_anew(self) -> None:
        """The machine has slept: everything may be otherwise, so the next turn is due now, and looks deeply."""
        self._conflicts.heed_nobody_knows_what()
        self._pace.look_anew(time.monotonic())

    # When it is due, and its turn.

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
        return () if now < self._deaf_until else self._settings.sources

    def take_notices(self) -> None:
        """What has happened to an attached device makes turn() due."""
        if self._read_notices():
            now = time.monotonic()
            self._pace.pulse_by(now)
            self._deaf_until = now + EVENT_SECONDS

    def _read_notices(self) -> bool:
        """Whether anything has happened to a device. After a reset of it, what was refused may be taken, too."""
        happened = self._settings.read_notices()
        if happened:
            self._pace.want(time.monotonic(), churn=True)  # what it has undone is mended without a look
        if not happened.isdisjoint(RESETS):
            self._processes.try_anew()
        return bool(happened)

    def turn(self) -> bool:
        """Check, look if that is due, and do what is to be done. Whether there is anything left to follow: False once
        the target has ended and cannot come back under its name, or somebody else has detached it."""
        if not self._sweep.underway and self._processes.is_put_off():
            return True
        try:
            goes_on = self._try_timers() and self._adapt()
            if not goes_on or self._sweep.underway or self._pace.seconds_left(time.monotonic()):
                return goes_on
            goes_on = self._check() and self._read_trial()
            if self.attached is not None and not self.attached.changes:
                self._let_go()  # nothing of it fits any more: it waits to be attached anew
            if goes_on and self._pace.due(time.monotonic()):
                if self._waits_for_another_sweep():
                    self._pace.put_off(time.monotonic() + PULSE_SECONDS)
                else:
                    goes_on = self._look()
        except (NapctlError, OSError) as error:
            self._words.say(in_words(error), "retry")
            self._pace.failed(time.monotonic(), attached=self.attached is not None)
            if self.attached is None:
                self._settings.await_reset(self._processes.devices)
            return True
        finally:
            self._words.tell_all()
        self._pace.went_well()
        return goes_on

    # The parts of a turn. Each tells whether the target is still ours to follow.

    def _try_timers(self) -> bool:
        """The next one, if a sweep is under way; after the last one it is attached."""
        try:
            over = self._sweep.turn()
        except Detached as error:
            self._attachment.recorded = True  # nothing is left of it
            self._words.say(str(error))
            return False
        except (NapctlError, OSError) as error:
            self._known.refuse(self._sweep.of, in_words(error))
            self._pace.want(time.monotonic())
            raise
        try:
            self._mode.take_best(self._sweep.next_best)
            return not over or self._look()
        finally:
            self._sweep.forget()  # by later traffic another one may be better

    def _waits_for_another_sweep(self) -> bool:
        """Whether it could only begin one of its own, while another target's is under way."""
        return self.attached is None and timer_without_trial(self._mode.options) is None and self._sweep.must_wait

    def _adapt(self) -> bool:
        """Into another way, if one is wanted."""
        transaction = self.attached
        if transaction is None:
            return True
        if self._way.is_another_wanted():
            with self._attachment.journal() as journal:
                if self._attachment.others(journal) is None:
                    return False
                assert self.attached is not None
                self._attachment.current = transaction = self._way.switch(journal, self.attached)
        self._trials.catch_up(transaction, polls=self._way.polls, settled=self._way.settled)
        self._pace.pulse_by(self._trials.until)
        return True

    def _check(self) -> bool:
        """The cheap part: what has gone is forgotten, and what is out of order at the devices mended at once."""
        self._processes.check()
        transaction = self.attached
        if transaction is None:
            if not self._attachment.recorded:
                with self._attachment.journal() as journal:
                    self._attachment.recover(journal, self.members.pids)
            return True
        present, running = self._settings.present(transaction), self._processes.running
        if self._attachment.settled and self._in_order == (transaction, present, running):
            return True
        step = cheap_step(transaction, present, running, self._conflicts.left)
        if self._is_left(step):
            step = cheap_step(transaction, present, running, self._conflicts.left)
            self._pace.want(time.monotonic())  # what it feeds is not to be attached either
        self._conflicts.see(transaction, present)
        if not step and self._attachment.settled:
            self._in_order = transaction, present, running
            return True
        if len([each for each in step.forget if isinstance(each, InstanceChange)]) > len(step.more):
            self._pace.want(time.monotonic())  # as many NAPI instances as before are not to be found
        return self._amend_what_is_ours(step)

    def _read_trial(self) -> bool:
        """What starves is taken back at once."""
        transaction = self.attached
        if transaction is None or (now := self._trials.read()) is None:
            return True
        if not now.starving or self._mode.options.force:
            return True
        return self._amend_what_is_ours(starved_step(transaction, self.members.examined(0), now, self._known))

    def _look(self) -> bool:
        """The deep part."""
        now = self._processes.look(self.attached)
        self._conflicts.look(now.found if now is not None else None)
        if now is None:
            goes_on = self._await_members()
        elif self.attached is None:
            self._attach(now)
            goes_on = True
        else:
            goes_on = self._follow(self.attached, now)
        self._processes.looked()
        return goes_on

    def _await_members(self) -> bool:
        self._let_go()
        if self._target.kind == "pid":
            self._words.say(f"{self._target.text} has ended")
            return False
        why = self.members.why
        self._words.say(f"waiting: {why}" if why else f"waiting for {self._target.text}: it is not running")
        return True

    def _attach(self, now: JudgedTarget) -> None:
        if not now.choice.empty:
            with self._attachment.journal() as journal:
                if self._attachment.recover(journal, self.members.pids):
                    now = self._processes.examined(None)
                now = self._known.without_held(now, journal.live(), None)
                now = self._known.without_left(now, self._conflicts.left, None)
                if not now.choice.empty:
                    self._attach_chosen(journal, now)
                    return
        elif self._mode.is_open and self._sweep.begin_modes(now, self._attachment.guard_now, self._known.standing()):
            with self._attachment.journal() as journal:
                self._attachment.recover(journal, self.members.pids)
            self._attachment.recorded = False  # until what is tried is put back
            return
        self._words.say(f"waiting: {who(now.found)}: {unfit_words(now)}")
        self._mode.end()  # one that was chosen does not fit any more: another one may

    def _attach_chosen(self, journal: Journal, now: JudgedTarget) -> None:
        """Where timers are to be tried before, that only begins."""
        self._attachment.recorded = False
        keys = keys_of(now.choice)
        try:
            refuse_unfit(journal, now)
            timer = timer_without_trial(self._mode.options) or self._sweep.choice
            if timer is None:
                self._sweep.begin(now, self._attachment.guard_now)
                return
            attached = self._attachment.attach(journal, now, self._mode.options, timer)
        except NapctlError as error:
            self._known.refuse(keys, str(error))
            raise
        self._way.begin(attached.transaction, attached.timer.gro_flush_timeout_ns)
        self._words.say_anew()
        self._settle(now)
        chosen = self._mode.options.timer_ns is None and self._mode.options.goal is None
        self._words.tell_attached(attached, who(now.found), chosen=chosen)
        self._settings.follow(attached.transaction)
        self._begin_trial(attached.transaction)

    def _follow(self, transaction: Transaction, now: JudgedTarget) -> bool:
        self._is_left(self._step(transaction, now))
        now = self._known.without_left(now, self._conflicts.left, transaction)
        if self._step(transaction, now) or not self._attachment.has_all(self.members.known):
            with self._attachment.journal() as journal:
                if (others := self._attachment.others(journal)) is None:
                    return False
                now = self._known.without_held(now, others, transaction)
                amended = self._amend(journal, step := self._step(transaction, now))
                if self._attachment.left_out or any(isinstance(each, IoUringChange) for each in step.without):
                    now = self._processes.examined(amended)  # NAPI instances are not to be kept for nobody
                    self._amend(journal, self._step(amended, now))
        self._settle(now)
        return True

    # What these have in common.

    def _step(self, transaction: Transaction, now: JudgedTarget) -> Step:
        adapts = self._mode.options.goal is not None
        present, left = self._settings.present(transaction), self._conflicts.left
        step = step_without_rings(transaction, now)
        return step or next_step(transaction, now, self._way.suspension, present, adapts=adapts, left=left)

    def _is_left(self, step: Step) -> bool:
        """Whether something that was lost is left to somebody else, from now on."""
        if step.lost:
            self._read_notices()  # nobody has listened since the last one: what a reset took is nobody's objection
        return self._conflicts.leave(step)

    def _amend_what_is_ours(self, step: Step) -> bool:
        """Whether it is still."""
        with self._attachment.journal() as journal:
            if self._attachment.others(journal) is None:
                return False
            self._amend(journal, step)
        return True

    def _amend(self, journal: Journal, step: Step) -> Transaction:
        amended = self._attachment.amend(journal, step, self.members.known)
        self._settings.made(step)
        for line, kind in step.words.items():
            self._words.tell(line, kind)
        if any(isinstance(each, PollerChange) for each in step.more):
            self._begin_trial(amended)
        self._way.follow(amended)
        return amended

    def _begin_trial(self, transaction: Transaction) -> None:
        self._trials.begin(transaction, now=self._way.settled)
        self._pace.pulse_by(self._trials.until)

    def _settle(self, now: JudgedTarget) -> None:
        self._processes.settle(now)
        self._way.look(now)

    # The end.

    def leave(self, *, kept: bool = False) -> None:
        """Stop following; what is attached stays so, without a keeper, until somebody detaches or adopts it.

        `kept`: with this process as its keeper, which will adopt it when it has executed itself anew.
        """
        self._attachment.leave(kept=kept)
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
        return self._attachment.take_restored()

    def _let_go(self) -> None:
        self._processes.unsettle()
        self._sweep.end()
        self._trials.end()
        self._way.end()
        self._attachment.detach(self.members.pids)
        self._settings.end()
        self._mode.end()
