"""An attachment: the one transaction that gives a running server IRQ suspension, or the next best; and the way back."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from napctl.attach.judge_target import JudgedTarget
from napctl.attach.steering import Group
from napctl.change.journal import Journal
from napctl.change.transaction import begun, restore
from napctl.kernel.processes import Process
from napctl.model.change import (
    Change,
    EpollChange,
    Guard,
    Holder,
    InstanceChange,
    IoUringChange,
    Keeper,
    NapiChange,
    PollerChange,
    Restored,
    SocketChange,
    SteeringChange,
    TargetProcess,
    ThreadChange,
    Transaction,
)
from napctl.model.errors import BadInput
from napctl.model.settings import (
    BUSY_POLL,
    DYNAMIC,
    ENABLED,
    INACTIVE,
    NapiSettings,
    RingPolling,
    SocketPolling,
    ThreadSettings,
)
from napctl.model.suspension import Suspension

__all__ = [
    "attachment",
    "attachments",
    "detach",
    "held",
    "napis_of",
    "others_of",
    "planned",
    "processes_of",
    "refuse_second",
    "refuse_shared",
    "ring_polling",
    "socket_polling",
    "steered_inodes",
]


SOCKET_BUSY_POLL_USECS = 50
"""Of a blocking read: what Documentation/admin-guide/sysctl/net.rst recommends for busy_read."""
RING_BUSY_POLL_USECS = 50
"""Of a wait in io_uring: the same."""
RING_MOST_USECS = 10_000
"""What the kernel takes at most (commit df8599ee18c0)."""
THREAD_NICE = 0
"""As a new one has: what a thread does is work of the server like its own."""


def attachment(
    journal: Journal, target: JudgedTarget, wanted: Suspension, *, guard: Guard | None = None,
    keeper: Keeper | None = None, adapts: bool = False,
) -> Transaction:  # fmt: skip
    """What attaches what was chosen, for apply(). `keeper`: None if it is to stay until somebody types `napctl detach`.
    `adapts`: as of planned().

    To be called after recover(), else the leavings of a dead server would be recorded as former values, and after
    refuse_second(). Raises BadInput if one of the NAPI instances is attached already.
    """
    first = target.found.processes[0]
    changes = planned(target, wanted, adapts=adapts)
    transaction = begun(
        "attach", first.name, changes, pid=first.pid, started_ticks=first.started_ticks, guard=guard, keeper=keeper
    )
    transaction = replace(transaction, also=others_of(changes, target.found.processes))
    refuse_shared(napis_of(transaction), journal.live())
    return transaction


def planned(target: JudgedTarget, wanted: Suspension, *, adapts: bool = False) -> tuple[Change, ...]:
    """The changes that attach what was chosen: steering, then the device's half, so that the deferral is there before
    the first task polls. An epoll instance or socket already as wanted is not touched, but for one that `adapts`: it is
    part of it all the same, as it may be given something else later. So is a ring, as nothing else tells that it is
    the ring that polls."""
    found, choice = target.found, target.choice
    if choice.mode == "thread":
        return tuple(_threads(target))
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
                after=wanted.deferral if choice.rings else wanted.napi,
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
            also=_holders(each.also, started),
            before=each.params,
            after=wanted.epoll,
        )
        for each in choice.instances
        if adapts or each.params != wanted.epoll
    ]
    polling = socket_polling(wanted)
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
        if adapts or each.polling != polling
    ]
    changes += [
        IoUringChange(
            pid=each.process.pid,
            name=each.process.name,
            started_ticks=each.process.started_ticks,
            fd=each.fd,
            inode=each.inode,
            also=_holders(each.also, started),
            before=each.polling,
            after=ring_polling(wanted),
        )
        for each in choice.rings
        if each.polling is not None
    ]
    return tuple(changes)


def _holders(places: Iterable[tuple[int, int]], started: Mapping[int, int]) -> tuple[Holder, ...]:
    return tuple(Holder(pid=pid, started_ticks=started[pid], fd=fd) for pid, fd in places if pid in started)


def others_of(changes: Iterable[Change], found: Sequence[Process]) -> tuple[TargetProcess, ...]:
    """The processes of a target but for the first, where no change names those that it is of."""
    if any(isinstance(each, PollerChange | SteeringChange) for each in changes):
        return ()
    return tuple(TargetProcess(pid=each.pid, started_ticks=each.started_ticks) for each in found[1:])


def _threads(target: JudgedTarget) -> Iterator[ThreadChange]:
    """All of each thread: one that is as wanted already is part of it all the same, so that nobody else sets it."""
    for place in target.choice.threads:
        located = target.found.napis[place.napi_id]
        threaded = BUSY_POLL if target.choice.spins else ENABLED
        if located.napi.thread is not None:
            yield ThreadChange(
                netns=located.netns,
                device=located.device.name,
                ifindex=located.device.ifindex,
                napi_id=place.napi_id,
                before=located.napi.thread,
                after=ThreadSettings(threaded=threaded, nice=THREAD_NICE, cpus=str(place.cpu)),
            )


def socket_polling(wanted: Suspension) -> SocketPolling:
    """What a socket gets that its process reads without epoll."""
    if not wanted.prefer_busy_poll:
        return SocketPolling(busy_poll_usecs=0, prefer_busy_poll=False)
    return SocketPolling(busy_poll_usecs=wanted.busy_poll_usecs or SOCKET_BUSY_POLL_USECS, prefer_busy_poll=True)


def ring_polling(wanted: Suspension) -> RingPolling:
    """What an io_uring instance gets. How many packets one poll may take the kernel decides."""
    if not wanted.prefer_busy_poll:
        return RingPolling(tracking=INACTIVE, busy_poll_usecs=0, prefer_busy_poll=False)
    usecs = min(wanted.busy_poll_usecs or RING_BUSY_POLL_USECS, RING_MOST_USECS)
    return RingPolling(tracking=DYNAMIC, busy_poll_usecs=usecs, prefer_busy_poll=True)


def detach(journal: Journal, attachments: list[Transaction], *, force: bool = False) -> list[Restored]:
    """Restore every former value, also when the server has gone; the newest attachment first."""
    return [row for each in reversed(attachments) for row in restore(journal, each, force=force)]


def attachments(journal: Journal) -> list[Transaction]:
    """What is attached, oldest first; plans in force are none."""
    return [each for each in journal.live() if each.kind == "attach"]


def refuse_second(found: Collection[Process], live: list[Transaction]) -> None:
    """Raises BadInput if one of the processes is attached already."""
    keys = {(process.pid, process.started_ticks) for process in found}
    for each in live:
        if keys & set(processes_of(each)):
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


def processes_of(transaction: Transaction) -> Iterator[tuple[int, int]]:
    """That an attachment was made for: pid and start."""
    if transaction.kind == "attach":
        yield transaction.pid, transaction.started_ticks
        yield from ((each.pid, each.started_ticks) for each in transaction.also)
        for change in transaction.changes:
            if isinstance(change, PollerChange):
                yield from ((each.pid, each.started_ticks) for each in change.holders)


def napis_of(transaction: Transaction) -> Iterator[tuple[int, int]]:
    """NAPI instances that it changes: network namespace and id. Threads count if it attaches: who attaches leaves alone
    those that a plan gave."""
    threads = transaction.kind == "attach"
    changes = (each for each in transaction.changes if isinstance(each, InstanceChange))
    return ((each.netns, each.napi_id) for each in changes if threads or isinstance(each, NapiChange))


def steered_inodes(live: Iterable[Transaction]) -> frozenset[int]:
    """Listening sockets whose group napctl steers by now."""
    changes = (change for each in live for change in each.changes if isinstance(change, SteeringChange))
    return frozenset(inode for change in changes for inode in change.inodes)
