"""Attach and detach: the one transaction that gives a running server IRQ suspension, and the way back."""

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from napctl.attach.examine import Examination
from napctl.attach.fitness import Verdict, verdicts
from napctl.attach.look import EpollInstance, Key, LooseSocket
from napctl.attach.loose import loose_fitness
from napctl.attach.steering import Group, groups
from napctl.change.journal import Journal
from napctl.change.transaction import LeaveOut, apply, begun, never, restore
from napctl.kernel.processes import Process
from napctl.model.change import (
    Change,
    EpollChange,
    Guard,
    Holder,
    Keeper,
    NapiChange,
    Restored,
    SocketChange,
    SteeringChange,
    Transaction,
)
from napctl.model.errors import BadInput, Unsupported
from napctl.model.settings import NapiSettings, SocketPolling
from napctl.model.suspension import Suspension

SOCKET_BUSY_POLL_USECS = 50
"""Of a blocking read: what Documentation/admin-guide/sysctl/net.rst recommends for busy_read."""


@dataclass(frozen=True)
class Choice:
    """What of a target is attached."""

    instances: tuple[EpollInstance, ...]
    sockets: tuple[LooseSocket, ...]
    steered: tuple[Group, ...]
    """Groups that are given a program."""
    napis: tuple[int, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing would be polled by anybody."""
        return not (self.instances or self.sockets or self.steered)


@dataclass(frozen=True)
class Keeping:
    """Who is responsible for an attachment. `leave_out`: as of apply()."""

    guard: Guard | None = None
    keeper: Keeper | None = None
    leave_out: LeaveOut = never


ONCE = Keeping()
"""Nobody but who types `napctl detach`; all or nothing."""


def choose(
    found: Examination, judged: Iterable[Verdict], *, steer: bool, force: bool, poll_sysctl: int | None = None,
    without: Container[Key] = (),
) -> Choice:  # fmt: skip
    """What fits; with `steer` also what fits once it is steered; with `force` whatever the kernel would take; but
    nothing `without` which it is to be.

    A worker that has connections from before is left alone when it is steered: they may be of another queue than the
    one that it gets, and one of the two would wait for the suspend timer.
    """
    judged = tuple(each for each in judged if each.instance.key not in without)
    after = [each.instance for each in judged if each.judgement == "fits after steering"]
    chosen = [each.instance for each in judged if each.judgement == "fits"]
    if force:
        chosen += [each.instance for each in judged if each.judgement == "does not fit" and _possible(each, found)]
        chosen += after
    elif steer:
        chosen += [each for each in after if not each.sockets_by_napi]
    members = {id(each) for each in after}
    steered = [each for each in groups(found) if steer and any(id(one.instance) in members for one in each.members)]
    loose = loose_fitness(found, poll_sysctl=poll_sysctl)
    sockets = [one for one, each in loose if each.judgement == "fits" and one.key not in without]
    ids = {napi for each in chosen for napi in each.sockets_by_napi} | {one.napi_id for one in sockets if one.napi_id}
    unfed = {id(each) for each in chosen if each.listeners and not each.sockets_by_napi}
    for group in groups(found) if steer else ():
        if group in steered or any(id(member.instance) in unfed for member in group.members):
            ids |= set(group.napis)
    return Choice(tuple(chosen), tuple(sockets), tuple(steered), tuple(sorted(ids)))


def attach(
    journal: Journal,
    found: Examination,
    choice: Choice,
    wanted: Suspension,
    keeping: Keeping = ONCE,
) -> Transaction:
    """Set suspension on what was chosen. Returns what was recorded and made.

    To be called after recover(), else the leavings of a dead server would be recorded as former values, and after
    refuse_second(). Raises BadInput if one of the NAPI instances is attached already, and what apply() raises.
    """
    live = journal.live()
    changes = planned(found, choice, wanted)
    first = found.processes[0]
    transaction = begun(
        "attach", first.name, changes, pid=first.pid, started_ticks=first.started_ticks, guard=keeping.guard,
        keeper=keeping.keeper,
    )  # fmt: skip
    refuse_shared(napis_of(transaction), live)
    return apply(journal, transaction, then="attached", leave_out=keeping.leave_out)


def attach_process(journal: Journal, found: Examination, wanted: Suspension) -> Transaction:
    """Attach whatever fits without further ado. Raises Unsupported if nothing does, and as attach()."""
    refuse_second(found.processes, journal.live())
    judged = verdicts(found)
    choice = choose(found, judged, steer=False, force=False)
    if choice.empty:
        raise Unsupported(f"{who(found)}: {why_not(found, judged)}; nothing was changed")
    return attach(journal, found, choice, wanted)


def planned(found: Examination, choice: Choice, wanted: Suspension) -> tuple[Change, ...]:
    """The changes that attach what was chosen: steering, then the device's half, so that the deferral is there before
    the first task polls. An epoll instance already as wanted is not touched."""
    started = {process.pid: process.started_ticks for process in found.processes}
    changes: list[Change] = [_steering(group) for group in choice.steered]
    devices = {(each.netns, each.device.ifindex): each for each in found.napis.values()}
    for located in devices.values():
        changes += [
            NapiChange(
                netns=located.netns,
                device=located.device.name,
                ifindex=located.device.ifindex,
                napi_id=napi.napi_id,
                before=_touched(napi.settings),
                after=wanted.napi,
            )
            for napi in located.device.napis
            if napi.napi_id in choice.napis
        ]
    changes += [
        EpollChange(
            pid=each.process.pid,
            name=each.process.name,
            started_ticks=each.process.started_ticks,
            epoll_fd=each.fd,
            also=tuple(Holder(pid=pid, started_ticks=started[pid], fd=fd) for pid, fd in each.also if pid in started),
            before=each.params,
            after=wanted.epoll,
        )
        for each in choice.instances
        if each.params != wanted.epoll
    ]
    polling = SocketPolling(busy_poll_usecs=wanted.busy_poll_usecs or SOCKET_BUSY_POLL_USECS, prefer_busy_poll=True)
    changes += [
        SocketChange(
            pid=each.process.pid,
            name=each.process.name,
            started_ticks=each.process.started_ticks,
            fd=each.fd,
            inode=each.inode,
            budget=wanted.busy_poll_budget,
            before=each.polling,
            after=polling,
        )
        for each in choice.sockets
        if each.polling != polling
    ]
    return tuple(changes)


def detach(journal: Journal, attachments: list[Transaction], *, force: bool = False) -> list[Restored]:
    """Restore every former value, also when the server has gone; the newest attachment first."""
    return [row for each in reversed(attachments) for row in restore(journal, each, force=force)]


def attachments(journal: Journal) -> list[Transaction]:
    """What is attached, oldest first; plans in force are none."""
    return [each for each in journal.live() if each.kind == "attach"]


def who(found: Examination) -> str:
    """The target, for messages."""
    first, more = found.processes[0], len(found.processes) - 1
    return f"{first.name} ({first.pid})" + (f" and {more} more" if more else "")


def why_not(found: Examination, judged: Iterable[Verdict]) -> str:
    """Why nothing of a target can be attached as it is, in one clause."""
    judged = tuple(judged)
    for judgement in ("does not fit", "fits after steering"):
        alike = [each for each in judged if each.judgement == judgement]
        if alike:
            more = f" (and {len(alike) - 1} more like it)" if len(alike) > 1 else ""
            advice = "`--steer` would give each worker one queue" if judgement != "does not fit" else alike[0].hint
            return alike[0].why + more + (f"; what would help: {advice}" if advice else "")
    unsteerable = next((each for each in judged if each.hint), None)
    if unsteerable is not None:
        return f"{unsteerable.why}; what would help: {unsteerable.hint}"
    if found.rings:
        process, fd = found.rings[0]
        return f"it waits in io_uring (ring {fd} of {process.name}); the kernel suspends interrupts only for epoll"
    loose = [each for _, each in loose_fitness(found, poll_sysctl=None)]
    if loose:
        return f"socket {loose[0].fd}: {loose[0].why}"
    watched = sum(each.watched for each in found.instances)
    if found.instances:
        return next((each.unfed for each in found.instances if each.unfed), None) or (
            f"none of the {watched} descriptors that its epoll instances watch has received a packet through a NAPI "
            "instance: it has no connection yet"
        )
    return "it has no epoll instance; the kernel suspends interrupts only for tasks that wait in epoll"


def refuse_second(found: Collection[Process], live: list[Transaction]) -> None:
    """Raises BadInput if one of the processes is attached already."""
    keys = {(process.pid, process.started_ticks) for process in found}
    for each in live:
        if keys & set(_processes(each)):
            raise BadInput(f"{each.title}: already attached; `napctl detach {each.pid}` first")


def refuse_shared(wanted: Iterable[tuple[int, int]], live: list[Transaction]) -> None:
    """Raises BadInput if one of these NAPI instances is held()."""
    reasons = held(live)
    for napi in wanted:
        if napi in reasons:
            raise BadInput(reasons[napi])


def held(live: Iterable[Transaction]) -> Mapping[tuple[int, int], str]:
    """NAPI instances (network namespace and id) that are attached already, and by whom: two attachments of one could
    not both restore its former values.

    Upon an applied plan one may be made: its former values are the plan's. One that nobody has confirmed yet may go.
    """
    return {
        napi: f"NAPI {napi[1]}{_why_held(each)}" for each in live if each.state != "applied" for napi in napis_of(each)
    }


def _why_held(other: Transaction) -> str:
    match other.kind:
        case "attach":
            return f" is already attached for {other.title}; detach that first"
        case "verify":
            return ": its deferral is on trial by `napctl verify`; wait for its end"
    return f": {other.title} waits for `napctl confirm {other.number}`"


def _possible(verdict: Verdict, found: Examination) -> bool:
    """Whether the kernel would take it at all."""
    ids = verdict.instance.sockets_by_napi
    located = [found.napis[napi] for napi in ids if napi in found.napis]
    return bool(ids) and len(located) == len(ids) and all(
        each.napi.settings.irq_suspend_timeout_ns is not None for each in located
    )  # fmt: skip


def _steering(group: Group) -> SteeringChange:
    first = group.members[0]
    return SteeringChange(
        pid=first.instance.process.pid,
        name=first.instance.process.name,
        started_ticks=first.instance.process.started_ticks,
        fd=first.listener.fd,
        inodes=tuple(member.listener.inode for member in group.members),
        address=f"{group.kind} {group.address}",
    )


def _touched(settings: NapiSettings) -> NapiSettings:
    """Those settings that attaching changes."""
    return NapiSettings(
        defer_hard_irqs=settings.defer_hard_irqs,
        gro_flush_timeout_ns=settings.gro_flush_timeout_ns,
        irq_suspend_timeout_ns=settings.irq_suspend_timeout_ns,
    )


def _processes(transaction: Transaction) -> Iterator[tuple[int, int]]:
    if transaction.kind == "attach":
        yield transaction.pid, transaction.started_ticks
        for change in transaction.changes:
            if isinstance(change, EpollChange | SocketChange):
                yield from ((each.pid, each.started_ticks) for each in change.holders)


def napis_of(transaction: Transaction) -> Iterator[tuple[int, int]]:
    """NAPI instances that it changes: network namespace and id."""
    return ((change.netns, change.napi_id) for change in transaction.changes if isinstance(change, NapiChange))
