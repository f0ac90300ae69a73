"""Staying attached: follow a target through reloads, restarts and resets of its device, until told to stop.

Around a cheap check (follow_check.py, follow_devices.py) and a rare deep look (attach_target.py); follow_pace.py says
when which of them is due.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace as but
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attach_target import attach_target
from napctl.attach.attachment import detach
from napctl.attach.follow_check import Pulse
from napctl.attach.follow_devices import Devices, Readable
from napctl.attach.follow_memory import Known, key_of, keys_of
from napctl.attach.follow_pace import PULSE_SECONDS, Pace
from napctl.attach.follow_step import Present, Step, cheap_step, next_step, resets_of
from napctl.attach.follow_trial import Trials
from napctl.attach.follow_way import FollowWay
from napctl.attach.follow_words import Words, counted, in_words
from napctl.attach.inspect_target import Examination, examine
from napctl.attach.judge_target import WATCH_SECONDS, JudgedTarget, who, why_not
from napctl.attach.starving import starved_changes
from napctl.attach.switch_way import way_words
from napctl.attach.target import Target, resolve
from napctl.attach.timer_sweep import Detached
from napctl.change.journal import Journal
from napctl.change.recovery import recover, running
from napctl.change.transaction import amend, undisturbed
from napctl.kernel import process_tree, processes
from napctl.kernel.epoll_instances import SAMPLE
from napctl.kernel.priority import in_background
from napctl.kernel.processes import Process
from napctl.model.change import (
    Change,
    EpollChange,
    Guard,
    Keeper,
    NapiChange,
    Restored,
    SocketChange,
    Transaction,
)
from napctl.model.errors import NapctlError

__all__ = ["Stay"]


WAITING_SHARE = 0.01
"""Of one CPU that looking for a target takes of which no process runs."""
RENUMBERED = "NAPI instances have new ids"
MOST_PAUSE_SECONDS = 30.0
"""After one error upon the other: 1, 2, 4 … s."""
EVENT_SECONDS = 0.2
"""Between two checks for the sake of an event, of which there may be many."""


class Stay:
    """One target, followed. Nothing of it is attached before run(), nor after it, however that ends.

    `tell` receives a line for each event; `guard` is what restores everything if this process is killed.
    """

    def __init__(
        self, target: Target, options: AttachOptions, guard: Guard, directory: Path, tell: Callable[[str], None]
    ):
        self._target, self._options, self._directory = target, options, directory
        self._words = Words(tell)
        self._failures = 0
        """Turns that ended in an error, one after the other."""
        me = processes.process(os.getpid())
        assert me is not None
        self._guard, self._keeper = guard, Keeper(pid=me.pid, started_ticks=me.started_ticks)
        self._members: tuple[Process, ...] = ()
        self._pulse = Pulse(())
        self._pace = Pace()
        self._devices = Devices()
        self._transaction: Transaction | None = None
        self._recorded = True
        """Whether the journal has all of it, in the state in which it is: not if the disk was full amid a step."""
        self._way = FollowWay(options, directory, self._words)
        self._known = Known(options)
        self._left_out = False
        self._trials = Trials()
        self._event_at = 0.0
        self._resets: dict[tuple[int, int], NapiChange] = {}

    def run(self, stopped: Callable[[], bool], wake: Sequence[Readable | int] = ()) -> list[Restored]:
        """Follow the target until `stopped()`, or until it has ended and cannot come back under its name.

        `wake`: what can be read when `stopped()` is to be asked. Returns what became of each setting that was put back.
        """
        restored: list[Restored] = []
        try:
            while not stopped() and self._turn(restored):
                self._wait(wake)
        finally:
            restored += self._let_go()
            self._words.tell_all()
        return restored

    def _turn(self, restored: list[Restored]) -> bool:
        """Check, look if that is due, and do what is to be done. Whether there is anything left to follow."""
        if self._pace.is_put_off(time.monotonic()):
            return True
        try:
            goes_on = self._adapt()
            if not goes_on or self._pace.seconds_left(time.monotonic()):
                return goes_on
            goes_on = self._check() and self._read_trial()
            if self._transaction is not None and not self._transaction.changes:
                self._let_go()  # nothing of it fits any more: it waits to be attached anew
            if goes_on and self._pace.due(time.monotonic()):
                goes_on = self._look(restored)
        except (NapctlError, OSError) as error:
            self._words.say(in_words(error))
            self._pace.put_off(time.monotonic() + min(2.0**self._failures, MOST_PAUSE_SECONDS))
            self._failures += 1
            return True
        finally:
            self._words.tell_all()
        self._failures = 0
        return goes_on

    def _wait(self, wake: Sequence[Readable | int]) -> None:
        """Until it is time again, or something happens to an attached device."""
        now = time.monotonic()
        seconds = self._pace.seconds_left(now)
        if not self._pace.is_put_off(now):
            seconds = min(seconds, self._way.seconds_left(now))
        try:
            notices = self._devices.wait(seconds, wake)
        except (NapctlError, OSError) as error:
            self._words.say(in_words(error))
            self._devices.follow(())  # to be opened anew
            time.sleep(min(seconds, PULSE_SECONDS))
            return
        told = (each for each in notices if each.device)
        words = (f"{each.device}: {RENUMBERED if each.what == 'napi ids' else each.what}" for each in told)
        for line in dict.fromkeys(words):
            self._words.tell(line)
        if notices:
            self._pace.want(time.monotonic(), churn=True)  # what it has undone is mended without a look
            self._pace.pulse_by(time.monotonic())
            time.sleep(max(0.0, self._event_at + EVENT_SECONDS - time.monotonic()))
            self._event_at = time.monotonic()

    def _check(self) -> bool:
        """The cheap part: what has gone is forgotten, and what is out of order at the devices mended at once.

        Whether it is still ours to follow.
        """
        began = time.process_time()
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
        step = cheap_step(transaction, self._present(transaction), self._pulse.members)
        if not step and self._recorded:
            return True
        if len([each for each in step.forget if isinstance(each, NapiChange)]) > len(step.more):
            self._pace.want(time.monotonic())  # as many NAPI instances as before are not to be found
        with undisturbed(), Journal(self._directory) as journal:
            if self._others(journal, transaction) is None:
                return False
            self._amend(journal, transaction, step)
        return True

    def _look(self, restored: list[Restored]) -> bool:
        """The deep part. Whether there is anything left to follow."""
        began = time.process_time()
        nobody_waits = self._transaction is not None and not self._pace.urgent
        with in_background() if nobody_waits else nullcontext():
            pids = processes.pids()  # before the look: what comes meanwhile is a difference
            self._members = self._find_members()
            by_name = self._target.kind == "name"
            self._pulse = Pulse(self._members, self._known.settled, pids=pids, by_name=by_name)
            now = self._examined() if self._members else None
        took = time.process_time() - began
        if now is None:
            goes_on = self._await_members(restored)
        else:
            goes_on = self._attach(now) if self._transaction is None else self._follow(self._transaction, now)
        moment = time.monotonic()
        self._pace.looked(moment, took)
        if now is None:
            self._pace.again_at(moment + max(PULSE_SECONDS, took / WAITING_SHARE))
        if (again := self._known.next_try()) is not None:
            self._pace.again_at(again)
        return goes_on

    def _find_members(self) -> tuple[Process, ...]:
        """Whom the target's name means now; and those who belonged to it and still run, as workers of a dead master."""
        found: dict[int, Process] = {each.pid: each for each in self._members if running(each)}
        for each in process_tree.descendants(tuple(found)):
            found.setdefault(each.pid, each)
        with suppress(NapctlError):
            found = {each.pid: each for each in resolve(self._target)} | found
        return tuple(each for each in found.values() if each.pid != os.getpid())

    def _await_members(self, restored: list[Restored]) -> bool:
        restored += self._let_go()
        if self._target.kind == "pid":
            self._words.say(f"{self._target.text} has ended")
            return False
        self._words.say(f"waiting for {self._target.text}: it is not running")
        return True

    def _examined(self) -> JudgedTarget:
        """A glance; a longer look at how they wait when there is somebody new."""
        glance = self._known.judged(self._seen(0), self._transaction)
        if not (new := self._known.new(glance, self._transaction)):
            return glance
        longer = self._known.judged(self._seen(WATCH_SECONDS), self._transaction)
        self._known.learn(new, longer)
        return longer

    def _seen(self, watch_seconds: float) -> Examination:
        return examine(self._target.text, self._members, watch_seconds, SAMPLE).without_former_napis()

    def _attach(self, now: JudgedTarget) -> bool:
        if not now.choice.empty:
            with undisturbed(), Journal(self._directory) as journal:
                self._recover(journal)
                now = self._known.without_held(now, journal.live(), None)
                if not now.choice.empty:
                    return self._attach_chosen(journal, now)
        self._words.say(f"waiting: {who(now.found)}: {why_not(now.found, now.verdicts)}")
        return True

    def _recover(self, journal: Journal) -> None:
        """Also what is left of an attach of ours that could not be undone: to others it is followed."""
        members = {each.pid for each in self._members}
        ours = [each for each in journal.live() if each.keeper == self._keeper and each.pid in members]
        detach(journal, [each for each in ours if each.state == "changing"])
        for orphan, _ in recover(journal):
            self._words.tell(f"put back what was left of {orphan.title}")
        self._recorded = True

    def _attach_chosen(self, journal: Journal, now: JudgedTarget) -> bool:
        """Whether it is ours to follow: somebody may have detached it while timers were tried."""
        self._recorded = False
        try:
            attached = attach_target(
                journal, now, self._options, self._words.write,
                guard=self._guard, keeper=self._keeper, leave_out=self._leave_out,
            )  # fmt: skip
        except Detached as error:
            self._words.say(str(error))
            return False
        except NapctlError as error:
            self._known.refuse(keys_of(now.choice.instances, now.choice.sockets), str(error))
            raise
        self._transaction, self._recorded = attached.transaction, True
        self._way.begin(attached.transaction, attached.timer.gro_flush_timeout_ns)
        self._words.say_anew()
        self._settle(now)
        self._words.tell(
            f"attached {who(now.found)}: {counted(attached.transaction)}, in {attached.attach_seconds * 1000:.0f} ms"
        )
        if self._options.timer_ns is None and self._options.goal is None:
            chosen = f"chose {way_words(attached.timer.gro_flush_timeout_ns)}"
            self._words.tell(f"{chosen}: {attached.timer.why}" if attached.timer.why else chosen)
        for warning in attached.warnings:
            self._words.tell(warning)
        self._follow_devices(attached.transaction)
        self._begin_trial(attached.transaction)
        return True

    def _follow(self, transaction: Transaction, now: JudgedTarget) -> bool:
        """Whether it is still ours to follow: somebody may have detached it."""
        if self._step(transaction, now):
            with undisturbed(), Journal(self._directory) as journal:
                others = self._others(journal, transaction)
                if others is None:
                    return False
                now = self._known.without_held(now, others, transaction)
                if not self._amend(journal, transaction, self._step(transaction, now)):
                    now = self._examined()  # the NAPI instance of what was refused is not to be kept for nobody
                    assert self._transaction is not None
                    self._amend(journal, self._transaction, self._step(self._transaction, now))
        self._settle(now)
        return True

    def _settle(self, now: JudgedTarget) -> None:
        self._known.settle(now)
        self._pulse.settled = self._known.settled

    def _step(self, transaction: Transaction, now: JudgedTarget) -> Step:
        adapts = self._options.goal is not None
        return next_step(transaction, now, self._way.suspension, self._present(transaction), adapts=adapts)

    def _present(self, transaction: Transaction) -> Present:
        self._follow_devices(transaction)
        return but(self._devices.present(), resets=self._resets)

    def _follow_devices(self, transaction: Transaction) -> None:
        napis = (each for each in transaction.changes if isinstance(each, NapiChange))
        self._devices.follow({(each.netns, each.ifindex) for each in napis})

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
        if not running(transaction) and self._members:
            first = self._members[0]
            transaction = replace(transaction, pid=first.pid, name=first.name, started_ticks=first.started_ticks)
        self._recorded = False
        self._transaction = amend(
            journal, transaction, more=step.more, without=step.without, forget=step.forget, leave_out=self._leave_out
        )
        self._recorded = True
        self._resets |= resets_of(step.forget)
        for line in dict.fromkeys(step.words):
            self._words.tell(line)
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
        self._words.say(f"{change.where} cannot be attached: {error}")
        return True

    def _let_go(self) -> list[Restored]:
        """Raises what detach() does; it can be repeated then."""
        self._known.settled = self._pulse.settled = frozenset()
        self._trials.end()
        self._way.end()
        rows: list[Restored] = []
        if (transaction := self._transaction) is not None:
            with undisturbed(), Journal(self._directory) as journal:
                rows = detach(journal, [each for each in journal.live() if each.number == transaction.number])
        self._transaction = None
        self._resets.clear()
        self._devices.follow(())
        return rows

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
        starved = list(starved_changes(transaction, self._seen(0), now.starving))
        for change in starved:
            if (key := key_of(change)) is not None:
                self._known.harm(key, now.why)
        with undisturbed(), Journal(self._directory) as journal:
            if self._others(journal, transaction) is None:
                return False
            words = f"detached {', '.join(change.where for change in starved)}: {now.why}"
            self._amend(journal, transaction, Step(without=starved, words=[words] if starved else []))
        return True
