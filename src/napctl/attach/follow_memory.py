"""What --stay knows of a target beside what a look shows: what was refused or came to no good, what is settled."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace as but

from napctl.attach.attach_options import AttachOptions
from napctl.attach.attachment import held, steered_inodes
from napctl.attach.follow_step import outgrown_listeners
from napctl.attach.inspect_process import PLAIN_SOCKETS, EpollInstance, Key, PlainSocket, Ring
from napctl.attach.inspect_target import Examination
from napctl.attach.judge_target import BESIDE, WATCH_SECONDS, Choice, JudgedTarget, judge
from napctl.attach.steering import groups
from napctl.model.backoff import AT_A_TERMINAL, Backoff, Pauses
from napctl.model.change import Change, EpollChange, IoUringChange, SocketChange, Transaction
from napctl.model.modes import OF_INSTANCES

__all__ = ["Known", "key_of", "keys_of"]


NOT_SEEN = "nobody was seen to wait in a read of it that may block"
INSISTS = "somebody else keeps changing its settings, or those of the NAPI instance that feeds it"
HARMED = Pauses(600.0, 86400.0)
"""Before what came to no good is tried again."""


class Known:
    """Of one target. What is refused is tried again after those pauses; only what is there is remembered."""

    def __init__(self, options: AttachOptions, pauses: Pauses = AT_A_TERMINAL) -> None:
        self._options, self.pauses = options, pauses
        self._refused = Backoff[Key](pauses)
        self._harmed = Backoff[Key](HARMED)
        """What starved."""
        self._outgrown = Backoff[Key](HARMED)
        """What would have come to mix queues, as its group had outgrown its program: until it can be steered again."""
        self._accepted: frozenset[Key] = frozenset()
        """Instances and rings that are chosen: one that is so already has no change by which it is known."""
        self.settled: frozenset[int] = frozenset()
        """Pids of those in which there is nothing left to attach."""

    def become(self, options: AttachOptions) -> None:
        """These are in force from now on."""
        self._options = options

    def refuse(self, keys: Iterable[Key], why: str) -> None:
        """The kernel or a long look refuses them, or another attachment has what feeds them."""
        for key in keys:
            self._refused.failed(key, time.monotonic(), why)

    def harm(self, key: Key, why: str) -> None:
        """It was attached, and that did it no good."""
        self._harmed.failed(key, time.monotonic(), why)

    def next_try(self) -> float:
        """When something is to be tried again, of time.monotonic(); infinite: nothing is."""
        now = time.monotonic()
        return min(each.next_at(now) for each in (self._refused, self._harmed, self._outgrown))

    def standing(self) -> Mapping[Key, str]:
        """What is not to be tried yet, and why."""
        now = time.monotonic()
        return {**self._refused.standing(now), **self._outgrown.standing(now), **self._harmed.standing(now)}

    def examined(self, look: Callable[[float], Examination], attached: Transaction | None) -> JudgedTarget:
        """A glance; a longer look at how they wait when there is somebody new. `look` takes the seconds to watch."""
        glance = self.judged(look(0), attached)
        new = self.new(glance, attached)
        alone = attached is None and glance.choice.mode in OF_INSTANCES  # a long look tells who else polls them
        if not (new or alone):
            return glance
        longer = self.judged(look(WATCH_SECONDS), attached)
        self.learn(new, longer)
        return longer

    def judged(self, found: Examination, attached: Transaction | None) -> JudgedTarget:
        """What was found, judged by this; a group that has outgrown its program is not steered any more."""
        there = {each.key for each in found.instances} | {each.key for each in found.plain_sockets}
        there |= {each.key for each in found.rings}
        for each in (self._refused, self._harmed, self._outgrown):
            each.keep_only(there)
        for group in groups(found):
            if group.queues and group.misfit is None:
                for member in group.members:
                    self._outgrown.forget(member.instance.key)
        live = [attached] if attached else []
        misfits = outgrown_listeners(attached, found) if attached else {}
        steered = steered_inodes(live) - misfits.keys()
        now = judge(found, self._options, steered=steered, refused=self.standing())
        if not misfits:
            return now
        anew = {id(member.instance) for group in now.choice.steered for member in group.members}
        for instance in found.instances:
            why = next((misfits[one.inode] for one in instance.listeners if one.inode in misfits), None)
            if why is not None and id(instance) not in anew:  # its connections will mix, which they do not yet
                self._outgrown.failed(instance.key, time.monotonic(), why)
        return judge(found, self._options, steered=steered, refused=self.standing())

    def new(self, glance: JudgedTarget, attached: Transaction | None) -> set[Key]:
        """What is not attached and may be tried now, as far as a glance can tell."""
        if glance.choice.mode in OF_INSTANCES:
            return set()  # nothing of the target itself is attached
        changes = attached.changes if attached else ()
        epolls = (each for each in changes if isinstance(each, EpollChange))
        holders = {(each.pid, each.started_ticks, each.fd) for one in epolls for each in one.holders}
        started = {each.pid: each.started_ticks for each in glance.found.processes}
        instances = {
            each.key
            for each in glance.choice.instances
            if not holders & {(pid, started.get(pid, 0), fd) for pid, fd in each.places}
        }
        inodes = {each.inode for each in changes if isinstance(each, SocketChange)}
        polled = {pid for each in glance.choice.instances for pid, _ in each.places}
        plain_sockets = {
            each.key
            for each in glance.found.plain_sockets
            if each.napi_id and each.inode not in inodes and each.process.pid not in polled
        }
        held = {each.inode for each in changes if isinstance(each, IoUringChange)}
        rings = {each.key for each in glance.choice.rings if each.inode not in held}
        accepted = self._accepted if attached else frozenset[Key]()
        return ((instances | rings) - accepted) | (plain_sockets - self.standing().keys())

    def learn(self, new: set[Key], longer: JudgedTarget) -> None:
        """What a long look has shown of those that were new."""
        chosen = keys_of(longer.choice)
        why = {each.instance.key: each.why for each in longer.verdicts}
        why |= {each.ring.key: BESIDE if each.judgement == "fits" else each.why for each in longer.rings}
        for key in new - chosen:
            self.refuse([key], why.get(key, NOT_SEEN))

    def without_held(
        self, now: JudgedTarget, others: Iterable[Transaction], attached: Transaction | None
    ) -> JudgedTarget:
        """Without what is fed by a NAPI instance that another attachment has."""
        reasons = {napi_id: reason for (_, napi_id), reason in held(others).items()}
        if now.choice.mode in OF_INSTANCES:
            return but(now, choice=now.choice.without(reasons))
        fed = [(each.key, set(each.sockets_by_napi)) for each in now.choice.instances]
        fed += [(each.key, {each.napi_id}) for each in now.choice.sockets if each.napi_id]
        fed += [(each.key, set(each.napis)) for each in now.choice.rings]
        found = {key: reasons[napi_id] for key, ids in fed for napi_id in sorted(ids & reasons.keys())}
        for key, reason in found.items():
            self.refuse([key], reason)
        return self.judged(now.found, attached) if found else now

    def without_left(self, now: JudgedTarget, left: Collection[str], attached: Transaction | None) -> JudgedTarget:
        """Without what somebody else keeps putting back (as a change says where), and what it feeds."""
        located = now.found.napis.items() if left else ()
        napis = {napi_id for napi_id, each in located if f"NAPI {napi_id} of {each.device.name}" in left}
        instances = now.choice.instances if left else ()
        sockets = now.choice.sockets if left else ()
        found = {each.key for each in instances if each.where in left or napis & each.sockets_by_napi.keys()}
        found |= {each.key for each in sockets if each.where in left or each.napi_id in napis}
        rings = now.choice.rings if left else ()
        found |= {each.key for each in rings if each.where in left or napis & each.napis}
        self.refuse(found, INSISTS)
        return self.judged(now.found, attached) if found else now

    def try_anew(self) -> bool:
        """What was refused, as somebody asks for it or something may have mended it. Whether there was anything."""
        return self._refused.forget_all()

    def settle(self, now: JudgedTarget) -> None:
        """Remember what is attached by now, and forget what is no more."""
        refused = self.standing().keys()
        polling: list[EpollInstance | Ring] = [*now.choice.instances, *now.choice.rings]
        chosen = [each for each in polling if each.key not in refused]
        self._accepted = frozenset(each.key for each in chosen)
        for key in self._accepted:
            self._refused.forget(key)
        unfed = {each.process.pid for each in now.found.instances if not (each.sockets_by_napi or each.listeners)}
        waiting = {key[0] for key in refused} | unfed
        self.settled = frozenset(pid for each in chosen for pid, _ in each.places) - waiting


def keys_of(choice: Choice) -> set[Key]:
    """By which those who poll are known again."""
    polling: list[EpollInstance | PlainSocket | Ring] = [*choice.instances, *choice.sockets, *choice.rings]
    return {each.key for each in polling}


def key_of(change: Change) -> Key | None:
    """Of what a change attaches; None: that is no instance, socket nor ring of a process."""
    match change:
        case EpollChange():
            return change.pid, change.started_ticks, change.epoll_fd
        case SocketChange():
            return change.pid, change.started_ticks, PLAIN_SOCKETS
        case IoUringChange():
            return change.pid, change.started_ticks, change.fd
    return None
