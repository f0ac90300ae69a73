"""The transaction of a followed target, as the journal has it: made, taken over, amended step by step, put back."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attach_target import attach_with
from napctl.attach.attachment import detach, others_of
from napctl.attach.follow_memory import Known, key_of
from napctl.attach.follow_step import Step, resets_of
from napctl.attach.follow_words import Words
from napctl.attach.judge_target import JudgedTarget
from napctl.change.guard import myself
from napctl.change.journal import Journal
from napctl.change.objects import Places
from napctl.change.one_change import undo
from napctl.change.recovery import alive, recover
from napctl.change.same_process import running
from napctl.change.successors import inherited
from napctl.change.takeover import leave, take_over
from napctl.change.transaction import amend, undisturbed
from napctl.kernel.links import links_at
from napctl.kernel.processes import Process
from napctl.model.activity import Attached
from napctl.model.change import Change, Guard, NapiChange, Restored, TargetProcess, Transaction
from napctl.model.errors import NapctlError
from napctl.model.timer_choice import TimerChoice

__all__ = ["FollowedTransaction"]


class FollowedTransaction:
    """Of one target; the next one when that is over. `entry`: as of a Keeper. `known` remembers what is refused."""

    def __init__(self, directory: Path, guard: Guard, entry: str, known: Known, words: Words):
        self._directory, self._known, self._words = directory, known, words
        self.guard, self._keeper = guard, myself(entry)
        self.current: Transaction | None = None
        """What is attached by now."""
        self.recorded = True
        """Whether the journal has all of it, in the state in which it is: not if the disk was full amid a step."""
        self.left_out = False
        """Whether the kernel has refused a change of the last step."""
        self._restored: list[Restored] = []
        self._gone: dict[tuple[int, int], NapiChange] = {}
        """By device: the newest attached NAPI instance that a reset has taken away, also if nothing is attached now."""

    @property
    def settled(self) -> bool:
        """Whether the journal has it as it is, by the name of a process that runs: else it is taken for orphaned."""
        return self.recorded and (self.current is None or alive(replace(self.current, also=())))

    def guard_now(self) -> Guard:
        """Who restores what is attached, or on trial, by now."""
        return self.guard

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        """Locked; the signals that end napctl are held back meanwhile."""
        with undisturbed(), Journal(self._directory) as journal:
            yield journal

    def attach(self, journal: Journal, now: JudgedTarget, options: AttachOptions, timer: TimerChoice) -> Attached:
        """What fits. Raises what attach_with() raises."""
        attached = attach_with(
            journal, now, options, timer, guard=self.guard, keeper=self._keeper, leave_out=self._leave_out
        )
        self.current, self.recorded = attached.transaction, True
        return attached

    def adopt(self, transaction: Transaction) -> Transaction:
        """Go on with one that a napctl has left: as it is recorded then. Raises what take_over() raises."""
        assert self.current is None
        with self.journal() as journal:
            taken = take_over(journal, transaction, self.guard, self._keeper)
        self.current = taken
        return taken

    def change_guard(self, guard: Guard) -> None:
        """That one is to restore what is attached, from now on. Raises what take_over() raises."""
        self.guard = guard
        if self.current is not None:
            with self.journal() as journal:
                self.current = take_over(journal, self.current, guard, self._keeper)

    def others(self, journal: Journal) -> list[Transaction] | None:
        """What else is in force; None if this is not any more: somebody else has detached it, which is told."""
        current = self._in_force(journal)
        if current is None:
            assert self.current is not None
            self._words.say(f"{self.current.title}: somebody else has detached it")
            self.current = None
            return None
        return [each for each in journal.live() if each.number != current.number]

    def _in_force(self, journal: Journal) -> Transaction | None:
        """It, as of Journal.in_force()."""
        assert self.current is not None
        found = journal.in_force(self.current)
        if found is not None and found.number != self.current.number:
            self._words.say(f"{found.title}: the journal did not have it any more; recorded anew", "retry")
            self.current = found
        return found

    def amend(self, journal: Journal, step: Step, members: Sequence[Process]) -> Transaction:
        """Make a step, one change after the other; as it is recorded then. It takes the name of the first of `members`
        when the process that it was named for has ended."""
        assert self.current is not None
        transaction = self.current
        first = next((each for each in members if running(each)), None)
        if not running(transaction) and first is not None:
            transaction = replace(transaction, pid=first.pid, name=first.name, started_ticks=first.started_ticks)
        transaction = replace(transaction, also=self._others(transaction, members))
        self.recorded = self.left_out = False
        self.current = amend(
            journal, transaction, more=step.more, without=step.without, forget=step.forget, leave_out=self._leave_out
        )
        self.recorded = True
        self._gone |= resets_of(step.forget)
        return self.current

    def has_all(self, members: Sequence[Process]) -> bool:
        """Whether these are its processes, as far as it has any of whom no change tells."""
        return self.current is None or set(self.current.also) == set(self._others(self.current, members))

    def _others(self, transaction: Transaction, members: Sequence[Process]) -> tuple[TargetProcess, ...]:
        named = (transaction.pid, transaction.started_ticks)
        first = [each for each in members if (each.pid, each.started_ticks) == named]
        rest = [each for each in members if (each.pid, each.started_ticks) != named]
        return others_of(transaction.changes, [*(first or members[:1]), *rest])

    def _leave_out(self, change: Change, error: NapctlError) -> bool:
        """One worker that cannot be set does not keep the others from being attached."""
        if (key := key_of(change)) is None:
            return False
        self.left_out = True
        self._known.refuse([key], str(error))
        self._words.say(f"{change.where} cannot be attached: {error}", "retry")
        return True

    def recover(self, journal: Journal, pids: Collection[int]) -> bool:
        """Also what is left of an attach of ours, or of a trial, that could not be undone: to others it is followed.
        `pids`: of the target's processes. Whether what a device has kept over a reset was put back."""
        keepers = (self._keeper, myself())
        ours = [each for each in journal.live() if each.keeper in keepers and each.pid in pids]
        detach(journal, [each for each in ours if each.state in ("changing", "attached")])
        for orphan, _ in recover(journal):
            self._words.tell(f"put back what was left of {orphan.title}", "restore")
        self.recorded = True
        return any(row.outcome == "restored" for row in self._put_back_what_was_kept(journal))

    def _put_back_what_was_kept(self, journal: Journal) -> list[Restored]:
        """By devices, over resets, of what is attached no more: it would be taken for a former value the next time."""
        if not self._gone:
            return []
        with Places() as places:
            kept = list(inherited(self._gone.values(), journal.live(), places))
            rows = [row for change in kept for row in undo(change, places)]
            over = {(each.netns, each.ifindex) for each in kept}
            over |= {each for each in self._gone if not _is_there(each, places)}
        self._gone = {device: each for device, each in self._gone.items() if device not in over}
        return rows

    def leave(self, *, kept: bool) -> None:
        """It stays in force without a keeper, until somebody detaches or adopts it; `kept`: with this one."""
        if self.current is not None and not kept:
            with self.journal() as journal:
                leave(journal, self.current)
        self.current = None

    def detach(self, pids: Collection[int]) -> None:
        """Put everything back, if anything is attached. Raises what detach() raises; it can be repeated then. `pids`:
        as of recover()."""
        if self.current is not None:
            with self.journal() as journal:
                ours = self._in_force(journal)
                self._restored += detach(journal, [ours] if ours is not None else [])
                self._restored += self._put_back_what_was_kept(journal)
        elif not self.recorded:
            with self.journal() as journal:
                self.recover(journal, pids)
        self.current = None

    def take_restored(self) -> list[Restored]:
        """What became of each setting that was put back since the last time."""
        restored, self._restored = self._restored, []
        return restored


def _is_there(device: tuple[int, int], places: Places) -> bool:
    """Whether that network namespace (its inode number), and in it that interface index, are there still."""
    inode, ifindex = device
    netns = places.candidates(inode)[0]
    return netns.inode == inode and bool(links_at(netns, [ifindex]))
