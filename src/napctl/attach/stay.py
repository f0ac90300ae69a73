"""Staying attached: follow a target through reloads, restarts and resets of its device, until told to stop."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace as but
from pathlib import Path

from msgspec.structs import replace

from napctl.attach.attach import detach, who, why_not
from napctl.attach.following import NapiKey, Present, next_step, resets_of
from napctl.attach.look import EpollInstance
from napctl.attach.operate import Examined, Wish, attach_target, look, steered_inodes
from napctl.attach.target import Target, resolve
from napctl.change.journal import Journal
from napctl.change.recovery import recover, running
from napctl.change.transaction import amend, undisturbed
from napctl.kernel import processes, processtree
from napctl.kernel.links import links
from napctl.kernel.monitor import Monitor
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.netdev import Netdev
from napctl.kernel.processes import Process
from napctl.model.change import EpollChange, Guard, Keeper, NapiChange, Restored, Transaction
from napctl.model.errors import NapctlError
from napctl.model.settings import NapiSettings
from napctl.model.suspension import Suspension

PAUSE_SECONDS = 0.3
"""Between two looks at the target; a change of a link is seen at once."""
SHARE = 0.1
"""Of one CPU that looking takes at most: the longer a look takes, the rarer looks are, without a limit."""


def pause_after(took_seconds: float) -> float:
    """How long to wait, s, after a look that took so much CPU time, so that looks take no more than SHARE of a CPU."""
    return max(PAUSE_SECONDS, took_seconds * (1 - SHARE) / SHARE)


class Stay:
    """One target, followed. Nothing of it is attached before run(), nor after it, however that ends.

    `tell` receives a line for each event; `guard` is what restores everything if this process is killed.
    """

    def __init__(self, target: Target, wish: Wish, guard: Guard, directory: Path, tell: Callable[[str], None]):
        self._target, self._wish, self._guard, self._directory = target, wish, guard, directory
        self._tell = tell
        me = processes.process(os.getpid())
        assert me is not None
        self._keeper = Keeper(pid=me.pid, started_ticks=me.started_ticks)
        self._members: tuple[Process, ...] = ()
        self._transaction: Transaction | None = None
        self._suspension: Suspension | None = None
        self._refused: dict[tuple[int, int, int], str] = {}
        self._accepted: frozenset[tuple[int, int, int]] = frozenset()
        self._resets: dict[tuple[int, int], NapiChange] = {}
        self._said = ""

    def run(self, stopped: Callable[[], bool]) -> list[Restored]:
        """Follow the target until `stopped()`, or until it has ended and cannot come back under its name.

        Returns what became of each setting that was put back.
        """
        restored: list[Restored] = []
        try:
            while not stopped():
                started = time.process_time()
                if not self._step(restored):
                    break
                took = time.process_time() - started
                self._pause(pause_after(took), stopped)
        finally:
            restored += self._let_go()
        return restored

    def _step(self, restored: list[Restored]) -> bool:
        """Look, and do what is to be done. Whether there is anything left to follow."""
        try:
            self._members = self._find_members()
            if not self._members:
                restored += self._let_go()
                if self._target.kind == "pid":
                    self._say(f"{self._target.text} has ended")
                    return False
                self._say(f"waiting for {self._target.text}: no process of it runs")
            elif self._transaction is None:
                self._attach()
            else:
                return self._follow(self._transaction)
        except NapctlError as error:
            self._say(str(error))
        return True

    def _find_members(self) -> tuple[Process, ...]:
        """Whom the target's name means now; and those who belonged to it and still run, as workers of a dead master."""
        found: dict[int, Process] = {each.pid: each for each in self._members if running(each)}
        for each in processtree.descendants(tuple(found)):
            found.setdefault(each.pid, each)
        with suppress(NapctlError):
            found = {each.pid: each for each in resolve(self._target)} | found
        return tuple(each for each in found.values() if each.pid != os.getpid())

    def _attach(self) -> None:
        glance = look(self._target.text, self._members, self._wish, watch_seconds=0, after_reset=True)
        if glance.choice.empty:
            self._say(f"waiting: {who(glance.found)}: {why_not(glance.found, glance.judged)}")
            return
        with undisturbed(), Journal(self._directory) as journal:
            for orphan, _ in recover(journal):
                self._tell(f"put back what was left of {orphan.title}")
            made = attach_target(
                journal, self._target.text, self._members, self._wish, self._tell, guard=self._guard,
                keeper=self._keeper,
            )  # fmt: skip
            self._transaction = made.transaction
        self._suspension = replace(self._wish.suspension, gro_flush_timeout_ns=made.timer.gro_flush_timeout_ns)
        self._said = ""
        changed = len(made.transaction.changes)
        self._tell(f"attached {who(made.examined.found)}: {changed} settings, in {made.seconds * 1000:.0f} ms")

    def _follow(self, transaction: Transaction) -> bool:
        """Whether it is still ours to follow: somebody may have detached it."""
        assert self._suspension is not None
        now = self._look(transaction)
        present = but(_present(transaction), resets=self._resets)
        step = next_step(transaction, now, self._suspension, present)
        if not step:
            return True
        first = now.found.processes[0]
        if not running(transaction):
            transaction = replace(transaction, pid=first.pid, name=first.name, started_ticks=first.started_ticks)
        with undisturbed(), Journal(self._directory) as journal:
            if all(each.number != transaction.number for each in journal.live()):
                self._transaction = None
                self._say(f"{transaction.title}: somebody else has detached it")
                return False
            self._transaction = amend(journal, transaction, more=step.more, without=step.without, forget=step.forget)
        self._resets |= resets_of(step.forget)
        for line in dict.fromkeys(step.words):
            self._tell(line)
        return True

    def _look(self, transaction: Transaction) -> Examined:
        """A glance; a longer look at how they wait when there is somebody new."""
        steered = steered_inodes([transaction])
        glance = look(self._target.text, self._members, self._wish, watch_seconds=0, steered=steered, after_reset=True)
        epolls = (each for each in transaction.changes if isinstance(each, EpollChange))
        attached = {(holder.pid, holder.started_ticks, holder.fd) for each in epolls for holder in each.holders}
        started = {each.pid: each.started_ticks for each in glance.found.processes}
        known = {
            _key(each)
            for each in glance.choice.instances
            if attached & {(pid, started.get(pid), fd) for pid, fd in each.places}
        }
        chosen = {_key(each): set(each.sockets_by_napi) for each in glance.choice.instances}
        if chosen.keys() - known - self._accepted - self._refused.keys():
            longer = look(self._target.text, self._members, self._wish, steered=steered, after_reset=True)
            for each in longer.judged:
                # What speaks against it is only seen by a longer look; connections of several queues a glance sees.
                alike = chosen.get(_key(each.instance)) == set(each.instance.sockets_by_napi)
                if each.judgement == "does not fit" and alike:
                    self._refused[_key(each.instance)] = each.why
            # One that is as wanted already gets no change by which it would be known: a program that sets it itself.
            self._accepted = frozenset(_key(each) for each in longer.choice.instances)
            return longer
        return glance if not chosen.keys() & self._refused.keys() else _without(glance, self._refused)

    def _pause(self, seconds: float, stopped: Callable[[], bool]) -> None:
        """Until the time is over, or something happened to the device."""
        netns = self._namespace()
        if netns is None:
            deadline = time.monotonic() + seconds
            while not stopped() and time.monotonic() < deadline:
                time.sleep(0.05)
            return
        with netns, Monitor(netns) as monitor:
            for notice in monitor.notices(seconds):
                self._tell(f"{notice.device or 'the device'}: {notice.what}")
                return

    def _namespace(self) -> NetworkNamespace | None:
        changes = self._transaction.changes if self._transaction else ()
        inode = next((change.netns for change in changes if isinstance(change, NapiChange)), None)
        return None if inode is None else NetworkNamespace.find(inode)

    def _let_go(self) -> list[Restored]:
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            return []
        with undisturbed(), Journal(self._directory) as journal:
            return detach(journal, [each for each in journal.live() if each.number == transaction.number])

    def _say(self, line: str) -> None:
        """Once, until something else is to be said."""
        if line != self._said:
            self._said = line
            self._tell(line)


def _key(instance: EpollInstance) -> tuple[int, int, int]:
    return instance.process.pid, instance.process.started_ticks, instance.fd


def _without(now: Examined, refused: dict[tuple[int, int, int], str]) -> Examined:
    """Without those instances that a longer look has refused: a glance does not see how they wait."""
    kept = tuple(each for each in now.choice.instances if _key(each) not in refused)
    return but(now, choice=but(now.choice, instances=kept))


def _present(transaction: Transaction) -> Present:
    napis: dict[NapiKey, NapiSettings] = {}
    of_devices: dict[tuple[int, int], tuple[int, ...]] = {}
    down: set[tuple[int, int]] = set()
    for inode in {change.netns for change in transaction.changes if isinstance(change, NapiChange)}:
        netns = NetworkNamespace.find(inode)
        if netns is None:
            continue
        with netns, Netdev(netns) as netdev:
            before = links(netns)
            for napi in netdev.napis():
                napis[inode, napi.napi_id] = napi.settings
                of_devices[inode, napi.ifindex] = (*of_devices.get((inode, napi.ifindex), ()), napi.napi_id)
            # Down before or after: what is missing between the two may be missing for that.
            down |= {(inode, link.ifindex) for link in (*before, *links(netns)) if not link.up}
    return Present(napis, of_devices, frozenset(down))
